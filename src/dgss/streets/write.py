"""Drawn streets on disk, in the layout of Cityscapes, below `<root>/streets-<look>`.

`leftImg8bit/<split>/<town>/<town>_<seed>_000019_leftImg8bit.png` and, in `gtFine`, `_gtFine_labelTrainIds.png`,
`_gtFine_labelIds.png` and `_gtFine_instanceIds.png`. `index.json` says how each split was drawn. Every file is written
whole or not at all, so an interrupted split is taken up where it ended.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dgss.errors import DataError, nearest
from dgss.files import FolderLock, usable_cores, write_bytes, write_text
from dgss.labels import label_space
from dgss.streets.draw import Street, check_request, draw_street

SPLITS = {"train": 0, "val": 5000, "test": 10000}
"""The splits with the seed of their first image."""
VERSION = 1
"""Raised whenever the pixels of any look change: streets of another version are drawn anew."""
_INDEX = "index.json"
_FRAME = 19
_PNG_LEVEL = 3
_PNG_HEAD, _PNG_TAIL = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Job:
    """The images of one split that are still to be drawn."""

    folder: Path
    look: str
    split: str
    size: tuple[int, int]

    @property
    def town(self) -> str:
        """What Cityscapes would call the town."""
        return f"drawn{self.look}"

    def paths(self, seed: int) -> dict[str, Path]:
        """The four files of one image, the image last."""
        stem = f"{self.town}_{seed:06d}_{_FRAME:06d}"
        fine = self.folder / "gtFine" / self.split / self.town
        kinds = ("labelTrainIds", "labelIds", "instanceIds")
        files = {kind: fine / f"{stem}_gtFine_{kind}.png" for kind in kinds}
        files["image"] = self.folder / "leftImg8bit" / self.split / self.town / f"{stem}_leftImg8bit.png"
        return files

    def write(self, seed: int) -> None:
        """Draws one image and writes its files."""
        street = draw_street(seed, self.look, self.size)
        contents = encode(street)
        for kind, path in self.paths(seed).items():
            write_bytes(path, contents[kind])

    def is_whole(self, seed: int) -> bool:
        """Whether all four files are there, complete and of the right size."""
        return all(_is_png(path, self.size) for path in self.paths(seed).values())


def write_split(
    root: Path,
    look: str,
    split: str,
    count: int,
    size: tuple[int, int] = (128, 256),
    workers: int | None = None,
    on_image: Callable[[int, int], None] | None = None,
    first: int | None = None,
) -> Path:
    """Draws what is missing of a split's `count` images of size (height, width); returns `<root>/streets-<look>`.

    workers: processes; 0 draws in this one, None takes one per core; the files are the same for any number.
    on_image(done, total) is called after each new image. first: seed of the first image, else that of `SPLITS`.
    A complete split is only looked at; to draw, the folder is locked, and another process drawing in it waited for.
    Raises `DataError` for an unknown look or split, `DgssError` where the folder cannot be written.
    """
    check_request(look, size)
    if split not in SPLITS:
        raise DataError(f"drawn streets have no split {split!r}: {nearest(split, SPLITS)}")
    job = Job(Path(root) / f"streets-{look}", look, split, size)
    begin = SPLITS[split] if first is None else first
    seeds = range(begin, begin + count)
    if _is_complete(job, seeds):
        return job.folder
    with FolderLock(job.folder, wait=True):
        _open_split(job)
        missing = [seed for seed in seeds if not job.is_whole(seed)]
        done = count - len(missing)
        for _ in _drawn(job, missing, workers):
            done += 1
            if on_image:
                on_image(done, count)
        _close_split(job)
    return job.folder


def _drawn(job: Job, seeds: list[int], workers: int | None) -> Any:
    """Writes the images of these seeds; yields each seed when its files are written."""
    processes = min(usable_cores() if workers is None else workers, len(seeds))
    if processes > 1:
        from dgss.streets.worker import draw_in_processes

        yield from draw_in_processes(job, seeds, processes)
        return
    for seed in seeds:
        job.write(seed)
        yield seed


def encode(street: Street) -> dict[str, bytes]:
    """The four PNG files of a street by kind: labelTrainIds, labelIds, instanceIds, image."""
    space = label_space("cityscapes19")
    raw = np.array(space.raw_ids, np.uint8)[street.labels]
    pictures: dict[str, NDArray[Any]] = {
        "labelTrainIds": street.labels,
        "labelIds": raw,
        "instanceIds": _instance_ids(street, raw, np.array(space.things)),
        "image": street.image[..., ::-1],
    }
    return {kind: _png(picture) for kind, picture in pictures.items()}


def _instance_ids(street: Street, raw: NDArray[np.uint8], things: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Ids as Cityscapes numbers them: 1000 times the class id plus the thing's number within its class, else the id."""
    ids = raw.astype(np.uint16)
    for label in np.flatnonzero(things):
        mask = street.labels == label
        for number, instance in enumerate(np.unique(street.instances[mask])):
            ids[mask & (street.instances == instance)] = int(raw[mask][0]) * 1000 + number
    return ids


def _png(picture: NDArray[Any]) -> bytes:
    done, coded = cv2.imencode(".png", np.ascontiguousarray(picture), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    assert done
    return bytes(coded)


def _is_png(path: Path, size: tuple[int, int]) -> bool:
    """Whether a file is a PNG of this size (height, width) in which no byte changed: every chunk has its checksum."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    place, width, height = 8, _number(content[16:20]), _number(content[20:24])
    while place < len(content):
        end = place + 12 + _number(content[place : place + 4])
        if zlib.crc32(content[place + 4 : end - 4]) != _number(content[end - 4 : end]):
            return False
        place = end
    return content[:8] == _PNG_HEAD and content.endswith(_PNG_TAIL) and (height, width) == size


def _number(content: bytes) -> int:
    return int.from_bytes(content, "big")


def _read_index(job: Job) -> dict[str, Any]:
    try:
        index = json.loads((job.folder / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        index = {}
    if not isinstance(index, dict) or not isinstance(index.get("splits"), dict):
        index = {"splits": {}}
    return {"look": job.look, "splits": index["splits"]}


def _record(job: Job, index: dict[str, Any]) -> dict[str, Any] | None:
    """What the index says of the split; None where it says nothing or was written for another version or size."""
    record = index["splits"].get(job.split)
    fits = isinstance(record, dict) and record.get("version") == VERSION and record.get("size") == list(job.size)
    return record if fits else None


def _is_complete(job: Job, seeds: range) -> bool:
    """Whether index and files hold all these images."""
    entered = (_record(job, _read_index(job)) or {}).get("seeds")
    return isinstance(entered, list) and set(entered) >= set(seeds) and all(map(job.is_whole, seeds))


def _open_split(job: Job) -> None:
    """Makes sure that the files of the split are those of this version and size: others are removed."""
    index = _read_index(job)
    if _record(job, index) is not None:
        return
    for tree in ("leftImg8bit", "gtFine"):
        for path in (job.folder / tree / job.split / job.town).glob(f"{job.town}_*.png"):
            path.unlink(missing_ok=True)
    _write_index(job, index, [])


def _close_split(job: Job) -> None:
    """Enters every complete image of the split in the index."""
    folder = job.folder / "leftImg8bit" / job.split / job.town
    seeds = sorted(int(path.name.split("_")[1]) for path in folder.glob(f"{job.town}_*.png"))
    _write_index(job, _read_index(job), [seed for seed in seeds if job.is_whole(seed)])


def _write_index(job: Job, index: dict[str, Any], seeds: list[int]) -> None:
    record = {"version": VERSION, "size": list(job.size), "seeds": seeds}
    if index["splits"].get(job.split) == record:
        return
    index["splits"][job.split] = record
    write_text(job.folder / _INDEX, json.dumps(index, indent=1) + "\n")

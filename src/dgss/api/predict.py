"""Labelling a person's own images: files, folders or patterns in, a folder of pictures out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from dgss.api.datasets import as_path
from dgss.api.load import opened
from dgss.errors import DataError, DeviceError
from dgss.files import atomic_path, check_place, path_errors
from dgss.inference.predictor import Model, Segmentation, class_legend, letters
from dgss.interfaces import Picture
from dgss.labels import LabelSpace
from dgss.training.devices import memory_errors
from dgss.training.progress import Progress

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What counts as an image in a folder; a file named by itself is tried whatever its name."""

_SHEET_IMAGES, _SHEET_COLUMNS = 12, 2
_CELL, _TALLEST, _NAME, _GAP = 480, 320, 20, 8  # pixels of the sheet: a pair of pictures, its name, what is between
_STEM = 200  # bytes; file systems take 255, and endings are added
_ADVICE = "shrink the image, or take another device"


@dataclass(frozen=True)
class Predictions:
    """What was written. overlays: by image. faults: one line for each image that could not be labelled."""

    folder: Path
    overlays: dict[Path, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def predict(
    model: Model | str | Path,
    images: str | Path | Iterable[str | Path],
    out: str | Path,
    device: str = "auto",
    progress: Progress | None = None,
) -> Predictions:
    """Labels images with a model, or with what `load_model` takes.

    images: files, folders (all pictures in them) or patterns such as `frames/*.jpg`. out: a new or empty folder; gets
    `NAME_labels.png` (class numbers, shown in class colours) and `NAME_overlay.png` an image, and `contact.png`.
    An image that cannot be labelled is named in `faults`, the others are done; without any nothing is written.
    """
    files, folder = find_images([images] if isinstance(images, str | Path) else images), as_path(out, "out")
    _check_empty(folder)
    progress = progress or Progress()
    loaded = opened(model, device, progress)
    done, sheet = Predictions(folder), _Sheet(loaded.labels)
    stride = -(-len(files) // _SHEET_IMAGES)  # the sheet shows images from all over
    with progress.bar("labelling") as advance:
        for number, (file, name) in enumerate(_names(files).items(), start=1):
            try:
                with memory_errors(_ADVICE):
                    shown = _label(loaded, file, folder / name)
            except (DataError, DeviceError) as error:
                fault = str(error) if str(file) in str(error) else f"{file}: {error}"
                done.faults.append(fault)
                progress.warn(fault)
            else:
                done.overlays[file] = folder / f"{name}_overlay.png"
                if (number - 1) % stride == 0:
                    sheet.add(file.name, *shown)
            advance(number, len(files), file.name)
        if sheet.cells:
            _save(folder / "contact.png", sheet.compose())
    return done


def _label(model: Model, file: Path, target: Path) -> tuple[Segmentation, Picture]:
    """Labels an image and writes both pictures of it; answers them, the overlay without its legend."""
    answer = model.predict(file, with_scores=False)
    overlay = answer.overlay(legend=True)
    answer.save(target.with_name(f"{target.name}_labels.png"))
    _save(target.with_name(f"{target.name}_overlay.png"), overlay)
    height, width = answer.labels.shape
    return answer, overlay[:height, :width]


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """The image files that files, folders and patterns name, each once. Raises `DataError` where one names none."""
    if not isinstance(sources, Iterable):
        raise DataError(f"images is {sources!r}; it should be files, folders or patterns")
    files: list[Path] = []
    for source in sources:
        path = as_path(source, "an image")
        with path_errors(path):
            found = _found(path)
        if not found:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{path}: no image there (a file, a folder with {kinds}, or a pattern such as 'x/*.jpg')")
        files += found
    return list(dict.fromkeys(files))


def _found(path: Path) -> list[Path]:
    """The image files of one file, folder or pattern."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if path.exists():
        return [path]
    base = Path(path.anchor)
    try:
        return sorted(file for file in base.glob(str(path.relative_to(base))) if file.is_file())
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is no pattern: {error}; write it like 'x/*.jpg' or 'x/**/*.jpg'") from error


def _check_empty(folder: Path) -> None:
    with path_errors(folder):
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise DataError(f"{folder} exists and is not empty; name a new folder with --out, nothing is overwritten")
    check_place(folder)


class _Sheet:
    """One picture of many: each image beside its overlay above its name, and what the colours mean."""

    def __init__(self, classes: LabelSpace) -> None:
        self.cells: list[tuple[str, Picture]] = []
        self._classes = classes
        self._found: set[int] = set()
        self._font = letters(12)

    def add(self, name: str, answer: Segmentation, overlay: Picture) -> None:
        """Takes an image with its overlay (H, W, 3)."""
        pair = np.hstack([_fitted(answer.image), _fitted(overlay)])
        self.cells.append((name, pair))
        self._found |= set(np.unique(answer.labels).tolist())

    def compose(self) -> Picture:
        """The sheet, (height, width, 3) uint8."""
        columns = min(_SHEET_COLUMNS, len(self.cells))
        rows = [self.cells[first : first + columns] for first in range(0, len(self.cells), columns)]
        width = columns * (_CELL + _GAP) + _GAP
        legend = class_legend(np.array(sorted(self._found), np.uint8), self._classes, width)
        heights = [max(len(pair) for _, pair in row) + _NAME + _GAP for row in rows]
        sheet = Image.new("RGB", (width, sum(heights) + _GAP + len(legend)), "white")
        draw, top = ImageDraw.Draw(sheet), _GAP
        for row, height in zip(rows, heights, strict=True):
            for column, (name, pair) in enumerate(row):
                left = _GAP + column * (_CELL + _GAP)
                sheet.paste(Image.fromarray(pair), (left, top))
                place = left, top + len(pair) + _NAME // 2
                draw.text(place, self._short(name), fill=(70, 70, 70), font=self._font, anchor="lm")
            top += height
        sheet.paste(Image.fromarray(legend), (0, top))
        return np.array(sheet)

    def _short(self, name: str) -> str:
        """A name that fits below a pair of pictures; what is cut out of a long one is its middle."""
        shown, kept = name, len(name)
        while self._font.getlength(shown) > _CELL:
            kept -= 1
            shown = f"{name[: (kept + 1) // 2]}…{name[len(name) - kept // 2 :]}"
        return shown


def _fitted(picture: Picture) -> Picture:
    """A picture (H, W, 3) uint8 as half a cell of the sheet has room for it."""
    height, width = picture.shape[:2]
    factor = min(_CELL / 2 / width, _TALLEST / height)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _names(files: list[Path]) -> dict[Path, str]:
    """A name for each file's answers: its stem, numbered where another has the same."""
    names: dict[Path, str] = {}
    taken: set[str] = set()  # in lower case, since some file systems know no other
    for file in files:
        stem = file.stem if len(os.fsencode(file.stem)) <= _STEM else file.stem[: _STEM // 4]
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        names[file] = name
        taken.add(name.lower())
    return names


def _save(path: Path, picture: Picture) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")

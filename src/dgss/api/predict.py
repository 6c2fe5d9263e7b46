"""Labelling a person's own images: files, folders or patterns in, a folder of pictures out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dgss.api.load import load_model
from dgss.errors import DataError
from dgss.files import atomic_path, path_errors
from dgss.inference.predictor import Model
from dgss.training.progress import Progress

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What counts as an image in a folder; a file named by itself is tried whatever its name."""

_SHEET_IMAGES, _SHEET_COLUMNS, _SHEET_WIDTH = 12, 2, 480


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
    """Labels images with a model, or with a run by its folder.

    images: files, folders (all pictures in them) or patterns such as `frames/*.jpg`. out: a new or empty folder; gets
    `NAME_labels.png` (class numbers, shown in class colours) and `NAME_overlay.png` an image, and `contact.png`.
    An image that cannot be read is named in `faults`, the others are done.
    """
    files, folder = find_images([images] if isinstance(images, str | Path) else images), Path(out).expanduser()
    _check_empty(folder)
    loaded = model if isinstance(model, Model) else load_model(model, device)
    _make(folder)
    done = Predictions(folder)
    sheet: list[NDArray[np.uint8]] = []
    stride = -(-len(files) // _SHEET_IMAGES)  # the sheet shows images from all over
    progress = progress or Progress()
    with progress.bar("labelling") as advance:
        for number, (file, name) in enumerate(_names(files).items(), start=1):
            try:
                answer = loaded.predict(file, with_scores=False)
            except DataError as error:
                fault = str(error) if str(file) in str(error) else f"{file}: {error}"
                done.faults.append(fault)
                progress.warn(fault)
            else:
                overlay = answer.overlay()
                answer.save(folder / f"{name}_labels.png")
                _save(folder / f"{name}_overlay.png", answer.overlay(legend=True))
                done.overlays[file] = folder / f"{name}_overlay.png"
                if (number - 1) % stride == 0:
                    sheet.append(_narrow(np.hstack([answer.image, overlay])))
            advance(number, len(files), file.name)
        if sheet:
            _save(folder / "contact.png", contact_sheet(sheet))
    return done


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """The image files that files, folders and patterns name, each once. Raises `DataError` where one names none."""
    files: list[Path] = []
    for source in sources:
        path = Path(source).expanduser()
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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write in {folder}: {error.strerror or error}; name another with --out") from error


def contact_sheet(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) uint8, of any sizes, in two columns of one width: (height, width, 3) uint8."""
    small, rows = [_narrow(picture) for picture in pictures], []
    for first in range(0, len(small), _SHEET_COLUMNS):
        row = small[first : first + _SHEET_COLUMNS]
        sheet = np.full((max(map(len, row)), _SHEET_COLUMNS * _SHEET_WIDTH, 3), 255, np.uint8)
        for column, picture in enumerate(row):
            sheet[: len(picture), column * _SHEET_WIDTH : (column + 1) * _SHEET_WIDTH] = picture
        rows.append(sheet)
    return np.vstack(rows)


def _narrow(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 as wide as a column of the sheet."""
    height = max(round(picture.shape[0] * _SHEET_WIDTH / picture.shape[1]), 1)
    return np.asarray(cv2.resize(picture, (_SHEET_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)


def _names(files: list[Path]) -> dict[Path, str]:
    """A name for each file's answers: its stem, numbered where another has the same."""
    names: dict[Path, str] = {}
    taken: set[str] = set()  # in lower case, since some file systems know no other
    for file in files:
        name, number = file.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{file.stem}_{number}"
        names[file] = name
        taken.add(name.lower())
    return names


def _save(path: Path, picture: NDArray[np.uint8]) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")

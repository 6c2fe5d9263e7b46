"""A trained model from the user's side: an image in, a `Segmentation` out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dgss.errors import DataError, DeviceError
from dgss.files import atomic_path
from dgss.inference.windows import InferenceSettings, score_strips, view_scores
from dgss.interfaces import MaskPrediction, Method
from dgss.labels import LabelMap, LabelSpace

Picture = NDArray[np.uint8]
ImageLike = str | Path | Image.Image | NDArray[Any]
_LONGEST = 16  # an image that is resized may be so many times as long as it is short ...
_PIXELS = 80_000_000  # ... and have so many pixels after it
_BLENDED = 256  # rows of an overlay at once: blending takes several floats a value
_NO_MEMORY = re.compile("allocate memory|not enough memory")


@dataclass(frozen=True)
class Segmentation:
    """The answer for one image.

    labels: (H, W) uint8, class numbers. scores: (K, H, W) float32, or None if not kept. classes: what the numbers
    mean. image: (H, W, 3) uint8, RGB, as it was read.
    """

    labels: LabelMap
    scores: NDArray[np.float32] | None
    classes: LabelSpace
    image: Picture

    def overlay(self, strength: float = 0.55, legend: bool = False) -> Picture:
        """The image under its class colours with thin borders between classes, (H, W, 3) uint8, RGB.

        strength: share of the colours, 0 to 1. legend: adds lines below that name the classes found.
        """
        border, picture = _borders(self.labels), np.empty_like(self.image)
        for top in range(0, len(picture), _BLENDED):
            rows = slice(top, top + _BLENDED)
            colours = self.classes.colour(self.labels[rows]).astype(np.float32)
            shown = self.image[rows].astype(np.float32) * (1 - strength) + colours * strength
            shown[border[rows]] = shown[border[rows]] * 0.35 + 255 * 0.65
            picture[rows] = np.clip(shown + 0.5, 0, 255).astype(np.uint8)
        return np.vstack([picture, _legend(self.labels, self.classes, picture.shape[1])]) if legend else picture

    def save(self, path: str | Path) -> None:
        """Writes the labels as a palette PNG: the file holds class numbers and is shown in class colours."""
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise DataError(f"{path}: labels are written as PNG, which loses nothing; let the name end in .png")
        picture = Image.fromarray(self.labels, "P")
        palette = self.classes.colour(np.arange(256, dtype=np.uint8)[None])[0]  # (256, 3)
        picture.putpalette(palette.tobytes())
        with atomic_path(path) as temporary:
            picture.save(temporary, format="PNG", optimize=True)


class Model:
    """A method that is ready to answer.

    method: built and loaded. read: image file, Pillow image or array to (H, W, 3) uint8, RGB. settings: how images are
    looked at. device: where it runs.
    """

    def __init__(
        self,
        method: Method,
        read: Callable[[ImageLike], Picture],
        settings: InferenceSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.method = method.to(self.device).eval()
        self.settings = settings or InferenceSettings()
        self._read = read

    @property
    def labels(self) -> LabelSpace:
        """The classes it answers in."""
        return self.method.labels

    # a string is a path, never a row of images, although its type is iterable too
    @overload
    def predict(self, source: ImageLike, with_scores: bool = True) -> Segmentation: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, source: Iterable[ImageLike], with_scores: bool = True) -> Iterator[Segmentation]: ...
    def predict(
        self, source: ImageLike | Iterable[ImageLike], with_scores: bool = True
    ) -> Segmentation | Iterator[Segmentation]:
        """Labels one image: a path, a Pillow image or an array (H, W, 3) uint8, RGB.

        Several images give an iterator, which reads and labels one at a time. `with_scores=False` saves K x H x W
        numbers an image.
        """
        if isinstance(source, str | Path | Image.Image | np.ndarray):
            return self._segment(self._read(source), with_scores)
        return (self._segment(self._read(image), with_scores) for image in source)

    def scores(self, images: Tensor) -> Tensor:
        """Class scores (B, K, H, W) float32 of images (B, 3, H, W) float in [0, 1], RGB, on the model's device."""
        _check_images(images)
        return self._scores(images, (images.shape[2], images.shape[3]))

    def _segment(self, image: Picture, with_scores: bool) -> Segmentation:
        size = image.shape[0], image.shape[1]
        seen = image if self.settings.short_edge is None else _resized(image, self.settings.short_edge)
        pixels = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1))).float()[None] / 255  # (1, 3, h, w)
        labels, kept = [], []
        with self._enough_memory(pixels), torch.inference_mode():
            for strip in score_strips(self._method_scores, pixels.to(self.device), self.settings, size):
                labels.append(strip[0].argmax(0).to(torch.uint8).cpu().numpy())
                if with_scores:
                    kept.append(strip[0].cpu().numpy())
            scores = np.concatenate(kept, 1) if with_scores else None
        return Segmentation(np.concatenate(labels), scores, self.labels, image)

    def _scores(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        with self._enough_memory(images), torch.inference_mode():
            return view_scores(self._method_scores, images.to(self.device), self.settings, size)

    def _method_scores(self, cuts: Tensor) -> Tensor:
        prediction: MaskPrediction = self.method(cuts)
        return prediction.scores((cuts.shape[2], cuts.shape[3])).float()

    @contextmanager
    def _enough_memory(self, images: Tensor) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            # torch's allocator of main memory raises a plain RuntimeError
            if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not _NO_MEMORY.search(str(error)):
                raise
            raise DeviceError(
                f"{self.device} has not enough memory for {tuple(images.shape)}; set inference.window"
            ) from error


def _resized(image: Picture, short_edge: int) -> Picture:
    """An image (H, W, 3) uint8 with a short edge of so many pixels. Refuses what would become huge."""
    height, width = image.shape[:2]
    factor = short_edge / min(height, width)
    if max(height, width) > _LONGEST * min(height, width) or height * width * factor**2 > _PIXELS:
        raise DataError(
            f"the image is {width}x{height}, with inference.short_edge {short_edge} it would be looked at as "
            f"{width * factor:.0f}x{height * factor:.0f}, at most {_LONGEST}:1 and {_PIXELS // 10**6} million pixels; "
            f"cut it into parts"
        )
    size = max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise DataError(f"images must be (B, 3, H, W), not {tuple(images.shape)}; add the batch axis, take RGB")
    if not images.is_floating_point():
        raise DataError(f"images must be floats in [0, 1], not {images.dtype}; divide by 255")


def _borders(labels: LabelMap) -> NDArray[np.bool_]:
    """Where a class ends: (H, W) bool, one pixel thin (against the right and the lower neighbour)."""
    border = np.zeros(labels.shape, np.bool_)
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    border[:-1] |= labels[:-1] != labels[1:]
    return border


def _legend(labels: LabelMap, classes: LabelSpace, width: int) -> Picture:
    """Rows of swatches and names of the classes in `labels`, (height, width, 3) uint8."""
    font = ImageFont.load_default(12)
    present = [number for number in np.unique(labels) if number < len(classes)]
    places, left, row = [], 8, 0
    for number in present:
        wide = 20 + int(font.getlength(classes.names[number])) + 14
        if left > 8 and left + wide > width:
            left, row = 8, row + 1
        places.append((number, left, row))
        left += wide
    strip = Image.new("RGB", (width, 20 * (row + 1) + 8), "white")
    draw = ImageDraw.Draw(strip)
    for number, x, line in places:
        top = 20 * line + 8
        draw.rectangle((x, top, x + 12, top + 11), fill=classes.colours[number], outline=(90, 90, 90))
        draw.text((x + 18, top + 6), classes.names[number], fill=(30, 30, 30), font=font, anchor="lm")
    return np.array(strip)

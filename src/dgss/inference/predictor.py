"""A trained model from the user's side: an image in, a `Segmentation` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dgss.errors import DataError, DeviceError, is_out_of_memory
from dgss.files import atomic_path
from dgss.inference.windows import InferenceSettings, score_strips, view_scores
from dgss.interfaces import ImageLike, Method, Picture, Prediction
from dgss.labels import LabelMap, LabelSpace

_LONGEST = 16  # an image that is resized may be so many times as long as it is short ...
_PIXELS = 80_000_000  # ... and have so many pixels after it
_BLENDED = 256  # rows of an overlay at once: blending takes several floats a value
_ROUNDING = 1e-3  # by how much resizing may carry values of a tensor out of their range
_BORDERED = 64  # pixels of the short edge from which on borders leave something between them


@dataclass(frozen=True)
class Segmentation:
    """The answer for one image.

    labels: (H, W) uint8, class numbers. scores: (K, H, W) float32, or None if not kept. classes: what the numbers
    mean. image: (H, W, 3) uint8, RGB, as it was read.
    """

    labels: LabelMap
    scores: NDArray[np.float32] | None = field(repr=False)
    classes: LabelSpace
    image: Picture = field(repr=False)

    def overlay(self, strength: float = 0.55, legend: bool = False) -> Picture:
        """The image under its class colours with thin borders between classes, (H, W, 3) uint8, RGB.

        strength: share of the colours, 0 to 1. legend: adds lines below that name the classes found; a picture
        narrower than the names gets a white margin on its right. Borders and letters grow with large pictures; one
        with a side under 64 pixels has no borders.
        """
        height, width = self.labels.shape
        scale = max((height * width) ** 0.5 / 1000, 1.0)
        border, picture = _borders(self.labels, round(scale)), np.empty_like(self.image)
        for top in range(0, len(picture), _BLENDED):
            rows = slice(top, top + _BLENDED)
            colours = self.classes.colour(self.labels[rows]).astype(np.float32)
            shown = self.image[rows].astype(np.float32) * (1 - strength) + colours * strength
            shown[border[rows]] = shown[border[rows]] * 0.35 + 255 * 0.65
            picture[rows] = np.clip(shown + 0.5, 0, 255).astype(np.uint8)
        if not legend:
            return picture
        names = class_legend(np.unique(self.labels), self.classes, width, scale)
        margin = ((0, 0), (0, names.shape[1] - width), (0, 0))
        return np.vstack([np.pad(picture, margin, constant_values=255), names])

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
        if isinstance(source, bytes | Tensor):  # iterable, but no row of images
            kind = type(source).__name__
            raise DataError(f"an image should be a path, a Pillow image or an array, not {kind}; tensors: scores()")
        if isinstance(source, str | Path | Image.Image | np.ndarray) or not isinstance(source, Iterable):
            return self._segment(source, with_scores)
        return (self._segment(image, with_scores) for image in source)

    def scores(self, images: Tensor) -> Tensor:
        """Class scores (B, K, H, W) float32 of images (B, 3, H, W) float in [0, 1], RGB, on the model's device.

        Raises `DataError` for images of another shape, type or range.
        """
        _check_images(images)
        with self._enough_memory(), torch.inference_mode():
            pixels = images.float()
            _check_range(pixels)
            return view_scores(self._method_scores, pixels.to(self.device), self.settings)

    def _segment(self, source: ImageLike, with_scores: bool) -> Segmentation:
        labels, kept = [], []
        with self._enough_memory(), torch.inference_mode():
            image = self._read(source)
            size = image.shape[0], image.shape[1]
            seen = image if self.settings.short_edge is None else _resized(image, self.settings.short_edge)
            pixels = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1))).float()[None] / 255  # (1, 3, h, w)
            for strip in score_strips(self._method_scores, pixels.to(self.device), self.settings, size):
                labels.append(strip[0].argmax(0).to(torch.uint8).cpu().numpy())
                if with_scores:
                    kept.append(strip[0].cpu().numpy())
            scores = np.concatenate(kept, 1) if with_scores else None
        return Segmentation(np.concatenate(labels), scores, self.labels, image)

    def _method_scores(self, cuts: Tensor) -> Tensor:
        prediction: Prediction = self.method(cuts)
        return prediction.scores((cuts.shape[2], cuts.shape[3])).float()

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError, cv2.error) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(f"out of memory on {self.device}: shrink the image, or set inference.window") from error


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
    if not isinstance(images, Tensor):
        raise DataError(f"images must be a tensor (B, 3, H, W), not {type(images).__name__}; use torch.from_numpy")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise DataError(f"images must be (B, 3, H, W), not {tuple(images.shape)}; add the batch axis, take RGB")
    if not images.is_floating_point():
        raise DataError(f"images must be floats in [0, 1], not {images.dtype}; divide by 255")


def _check_range(pixels: Tensor) -> None:
    low, high = (float(end) for end in pixels.aminmax())
    if not isfinite(low) or not isfinite(high):
        wrong = ~pixels.isfinite()
        image, row, column = wrong.any(1).nonzero()[0].tolist()
        raise DataError(
            f"images must lie in [0, 1], these hold NaN or infinity in {int(wrong.sum())} of {wrong.numel()} values, "
            f"first in image {image}, row {row}, column {column}; mend what made them, or replace them with "
            f"images.nan_to_num(0, 1, 0)"
        )
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise DataError(
            f"images must lie in [0, 1], these reach from {low:.3g} to {high:.3g}; divide bytes by 255, and "
            f"do not normalize"
        )


def _borders(labels: LabelMap, width: int) -> NDArray[np.bool_]:
    """Where a class ends, against the right and the lower neighbour: (H, W) bool, `width` pixels thick."""
    border = np.zeros(labels.shape, np.bool_)
    if min(labels.shape) >= _BORDERED:
        border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
        border[:-1] |= labels[:-1] != labels[1:]
    if width > 1:
        border = cv2.dilate(border.astype(np.uint8), np.ones((width, width), np.uint8)).astype(np.bool_)
    return border


def letters(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all pictures, `size` pixels high."""
    # Pillow's own has no letters beyond ASCII, which file names have; matplotlib's has. Loading it would write a cache
    spec = find_spec("matplotlib")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    try:
        return ImageFont.truetype(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def class_legend(labels: NDArray[np.uint8], classes: LabelSpace, width: int, scale: float = 1.0) -> Picture:
    """Rows of swatches and names of the class numbers `labels`, (height, width, 3) uint8, RGB.

    Wider where `width` pixels do not hold the longest name. scale: of letters and swatches, 1 is 12 pixels high.
    """
    font, one = letters(11 * scale), round(4 * scale)
    wides = {number: 8 * one + int(font.getlength(classes.names[number])) for number in labels[labels < len(classes)]}
    width, places, left, row = max(width, 2 * one + max(wides.values(), default=0)), [], 2 * one, 0
    for number, wide in wides.items():
        if left > 2 * one and left + wide > width:
            left, row = 2 * one, row + 1
        places.append((number, left, row))
        left += wide
    strip = Image.new("RGB", (width, (5 * row + 7) * one), "white")
    draw = ImageDraw.Draw(strip)
    for number, x, line in places:
        top = (5 * line + 2) * one
        draw.rectangle((x, top, x + 3 * one, top + 3 * one - 1), fill=classes.colours[number], outline=(90, 90, 90))
        draw.text((x + 4.5 * one, top + 1.5 * one), classes.names[number], fill=(30, 30, 30), font=font, anchor="lm")
    return np.array(strip)

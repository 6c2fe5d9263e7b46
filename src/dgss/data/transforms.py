"""What happens to a training image: resize, crop, flip, colours, padding, in this order.

Formulas and OpenCV resampling are those of MMSegmentation 0.x, which the published recipes were trained with
(open-mmlab/mmsegmentation, mmseg/datasets/pipelines/transforms.py; mmcv.rescale_size). Each step takes what was drawn
as an argument, so that recorded draws can be fed in; `augment` draws from a generator of the sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dgss.errors import DataError
from dgss.interfaces import Picture, Size
from dgss.labels import IGNORE, LabelMap

Side = Annotated[int, Field(ge=1)]


class TransformSettings(BaseModel):
    """How training images are varied.

    scale_min, scale_max: the ratio's range. scale_base: the size (H, W) that ratio 1 means, None the image's own.
    class_limit: redraw crops of which one class covers this share or more; 1 never. flip: its probability.
    brightness: added, up to this much of 255. contrast, saturation: factors 1 - x to 1 + x. hue: turned by up to this
    much of 180. jitter: the probability of each of these four.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale_min: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    scale_max: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    scale_base: tuple[Side, Side] | None = None
    class_limit: float = Field(default=0.75, gt=0, le=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=32.0, ge=0, le=255)
    contrast: float = Field(default=0.5, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, lt=1)
    hue: int = Field(default=18, ge=0, le=90)
    jitter: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min = {self.scale_min}: is above scale_max {self.scale_max}; swap them")
        return self


@dataclass(frozen=True)
class Crop:
    """One augmented sample: image (H, W, 3) uint8, RGB; label (H, W) uint8; valid (H, W) bool, False where padded."""

    image: Picture
    label: LabelMap
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Jitter:
    """What was drawn for the colours; None leaves a step out. contrast_first: before saturation and hue or after."""

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = True
    saturation: float | None = None
    hue: int | None = None


def augment(
    image: Picture, label: LabelMap, settings: TransformSettings, size: Size, generator: np.random.Generator
) -> Crop:
    """A random crop of `size` (H, W); image (H, W, 3) uint8, RGB, label (H, W) uint8. All draws from `generator`."""
    ratio = settings.scale_min + (settings.scale_max - settings.scale_min) * generator.random()
    image, label = resize_pair(image, label, scaled_size(label.shape, ratio, settings.scale_base))
    top, left = choose_crop(label, size, settings.class_limit, lambda options: int(generator.integers(options)))
    box = slice(top, top + size[0]), slice(left, left + size[1])
    image, label = image[box], label[box]
    if generator.random() < settings.flip:
        image, label = image[:, ::-1], label[:, ::-1]
    image = photometric(np.ascontiguousarray(image), draw_jitter(settings, generator))
    return pad(image, label, size)


def fit_size(size: Size, scale: Size) -> Size:
    """The largest size of the same aspect within `scale`, whose long edge bounds the long edge (mmcv.rescale_size)."""
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


def scaled_size(size: Size, ratio: float, base: Size | None = None) -> Size:
    """What an image of `size` is resized to at a drawn ratio (mmseg Resize with `ratio_range`); both truncations are
    the reference's."""
    height, width = base or size
    height, width = fit_size(size, (max(int(height * ratio), 1), max(int(width * ratio), 1)))
    return max(height, 1), max(width, 1)


def resize_image(image: Picture, size: Size) -> Picture:
    """Image (H, W, 3) uint8 to (*size, 3), bilinear without antialias, as all references do it."""
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)


def resize_label(label: LabelMap, size: Size) -> LabelMap:
    """Label (H, W) uint8 to `size`, nearest: no label arises that was not there."""
    return np.asarray(cv2.resize(label, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8)


def resize_pair(image: Picture, label: LabelMap, size: Size) -> tuple[Picture, LabelMap]:
    """Image and label to the same `size` (H, W)."""
    return resize_image(image, size), resize_label(label, size)


def choose_crop(label: LabelMap, size: Size, class_limit: float, draw: Callable[[int], int]) -> tuple[int, int]:
    """Top and left of a crop. `draw(n)` answers a number in 0..n-1.

    Up to ten boxes are refused while one class fills them; the eleventh is taken unseen (mmseg RandomCrop).
    """
    rows, columns = max(label.shape[0] - size[0], 0) + 1, max(label.shape[1] - size[1], 0) + 1
    box = draw(rows), draw(columns)
    for _ in range(10 if class_limit < 1 else 0):
        counts = np.bincount(label[box[0] : box[0] + size[0], box[1] : box[1] + size[1]].ravel(), minlength=256)
        present = counts[:IGNORE][counts[:IGNORE] > 0]
        if present.size > 1 and present.max() / present.sum() < class_limit:
            break
        box = draw(rows), draw(columns)
    return box


def draw_jitter(settings: TransformSettings, generator: np.random.Generator) -> Jitter:
    """Colours of one sample. Every number is drawn whether used or not, so that one setting does not move the rest."""
    chances, values = generator.random(5), generator.random(4)
    use = chances[:4] < settings.jitter
    spread = 2 * values - 1  # in [-1, 1)
    return Jitter(
        brightness=float(settings.brightness * spread[0]) if use[0] else None,
        contrast=float(1 + settings.contrast * spread[1]) if use[1] else None,
        contrast_first=bool(chances[4] < 0.5),
        saturation=float(1 + settings.saturation * spread[2]) if use[2] else None,
        hue=int(np.floor(settings.hue * spread[3])) if use[3] else None,
    )


def photometric(image: Picture, jitter: Jitter) -> Picture:
    """Image (H, W, 3) uint8, RGB, with other colours (mmseg PhotoMetricDistortion).

    8-bit after every step; saturation and hue go to OpenCV's 8-bit HSV and back each on its own, as the reference's.
    """
    if jitter.brightness is not None:
        image = _linear(image, 1.0, jitter.brightness)
    if jitter.contrast is not None and jitter.contrast_first:
        image = _linear(image, jitter.contrast, 0.0)
    if jitter.saturation is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _linear(hsv[..., 1], jitter.saturation, 0.0)
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    if jitter.hue is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + jitter.hue) % 180
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    if jitter.contrast is not None and not jitter.contrast_first:
        image = _linear(image, jitter.contrast, 0.0)
    return image


def pad(image: Picture, label: LabelMap, size: Size) -> Crop:
    """Image and label filled to `size` at the right and below: image 0, label 255, not valid."""
    height, width = label.shape
    if height > size[0] or width > size[1]:
        raise DataError(f"an image of {width}x{height} cannot be padded to {size[1]}x{size[0]}; crop it first")
    valid = np.zeros(size, np.bool_)
    valid[:height, :width] = True
    padded, ignored = np.zeros((*size, 3), np.uint8), np.full(size, IGNORE, np.uint8)
    padded[:height, :width], ignored[:height, :width] = image, label
    return Crop(padded, ignored, valid)


def _linear(channels: Picture, factor: float, offset: float) -> Picture:
    """factor * x + offset in float32, clipped, truncated: a table of all 256 values, which is the same and faster."""
    table = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return np.asarray(cv2.LUT(np.ascontiguousarray(channels), np.clip(table, 0, 255).astype(np.uint8)), np.uint8)

"""The camera behind the light: tone, contrast, colour, sharpness, vignette, sensor noise, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dgss.streets.noise import Floats, cell_hash
from dgss.streets.shading import Shot

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def luma(image: Floats) -> Floats:
    """Brightness of an RGB image (H, W, 3): (H, W)."""
    return np.asarray(image @ _LUMA, np.float32)


def tone(shot: Shot) -> None:
    """Linear light to what a screen shows."""
    light = shot.light
    np.multiply(shot.image, np.float32(-1.3 * light.exposure), out=shot.image)
    np.subtract(1, np.exp(shot.image, out=shot.image), out=shot.image)
    np.power(np.maximum(shot.image, 0, out=shot.image), np.float32(1 / light.gamma), out=shot.image)


def saturate(image: Floats, factor: float) -> Floats:
    """Colours drawn away from grey (above 1) or towards it."""
    grey = luma(image)[..., None] * np.float32(1 - factor)
    return np.asarray(image * np.float32(factor) + grey, np.float32)


def blurred(image: Floats, sigma: float) -> Floats:
    """A Gaussian blur; `sigma` in pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)


def wide_blur(image: Floats, sigma: float) -> Floats:
    """A wide Gaussian blur, done on a smaller image."""
    shrink = max(1, int(sigma / 2))
    height, width = image.shape[:2]
    if shrink == 1:
        return blurred(image, sigma)
    small = cv2.resize(image, (-(-width // shrink), -(-height // shrink)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(blurred(small, sigma / shrink), (width, height)), np.float32)


def sharpen(image: Floats, strength: float, sigma: float) -> Floats:
    """Unsharp masking."""
    return np.asarray(image + np.float32(strength) * (image - blurred(image, sigma)), np.float32)


def grain(shot: Shot, strength: float) -> None:
    """Sensor noise: brightness and colour, stronger in the dark."""
    height, width = shot.image.shape[:2]
    key = shot.stream.whole(0, 1 << 20)
    rows, columns = np.mgrid[0:height, 0:width]
    draws = [cell_hash(columns, rows, key + number) for number in range(5)]
    common = 0.8 * (draws[0] + draws[1] - 1)
    level = np.clip(1.2 - luma(shot.image), 0.2, 1.2) * np.float32(1.4 * strength)
    for channel in range(3):
        shot.image[..., channel] += level * (common + (draws[2 + channel] - np.float32(0.5)))


def contrast(shot: Shot, strength: float) -> None:
    """An S-curve around the middle."""
    offset = shot.image - np.float32(0.42)
    shot.image += np.float32(strength) * offset * (np.float32(1.1) - np.abs(offset))


def vignette(shot: Shot, strength: float) -> None:
    """Darker corners."""
    height, width = shot.image.shape[:2]
    y = (np.arange(height, dtype=np.float32)[:, None] / height - 0.5) * 2
    x = (np.arange(width, dtype=np.float32)[None, :] / width - 0.5) * 2
    shot.image *= (1 - np.float32(0.5 * strength) * (x * x + y * y))[..., None]


def compress(shot: Shot, quality: int) -> None:
    """A pass through JPEG."""
    done, coded = cv2.imencode(".jpg", to_bytes(shot.image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    shot.image = decoded[..., ::-1].astype(np.float32) * np.float32(1 / 255)


def to_bytes(image: Floats) -> NDArray[np.uint8]:
    """An image of 0 to 1 as 8-bit, rounded and clipped."""
    return np.ascontiguousarray(np.clip(image * 255 + np.float32(0.5), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Sensor:
    """How a real camera sees: ranges to draw from."""

    saturation: tuple[float, float]
    noise: float
    blur: tuple[float, float] = (0.35, 0.75)
    contrast: tuple[float, float] = (0.1, 0.55)

    def expose(self, shot: Shot) -> None:
        """Contrast, colour, softness, white balance, vignette, noise, compression."""
        stream = shot.stream
        contrast(shot, stream.uniform(*self.contrast))
        shot.image = saturate(shot.image, stream.uniform(*self.saturation))
        shot.image = blurred(shot.image, stream.uniform(*self.blur) * shot.unit**0.5)
        shot.image *= np.array([stream.uniform(0.93, 1.05), 1.0, stream.uniform(0.93, 1.06)], np.float32)
        vignette(shot, stream.uniform(0, 0.5))
        grain(shot, self.noise * stream.uniform(0.5, 1.4))
        compress(shot, stream.whole(70, 94))

"""Scenes for pre-training the mini model: reading them, random crops, photometric jitter, real frames for scoring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Pixels = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scenes:
    """images: (N, H, W, 3) uint8, RGB. labels: (N, H, W) uint8, 255 ignored."""

    images: Image
    labels: Labels

    def __len__(self) -> int:
        return len(self.images)


def read_scenes(folder: Path, split: str, first: int, count: int) -> Scenes:
    """The scenes first, ..., first + count - 1 of a drawn domain, from the folder that `write_split` answered."""
    files = sorted(folder.glob(f"leftImg8bit/{split}/*/*_leftImg8bit.png"))
    images = [path for path in files if first <= int(path.name.split("_")[1]) < first + count]
    assert len(images) == count, f"{folder} lacks scenes of {split} from seed {first}"
    labels = [
        folder / "gtFine" / split / path.parent.name / path.name.replace("leftImg8bit", "gtFine_labelTrainIds")
        for path in images
    ]
    return Scenes(np.stack([_read(path) for path in images]), np.stack([_read(path, grey=True) for path in labels]))


def read_camvid(folder: Path, size: tuple[int, int]) -> Scenes:
    """CamVid's test frames at `size` (H, W). They are only ever scored: CamVid is CC BY-NC."""
    names = (folder / "test.txt").read_text(encoding="utf-8").split()
    images = [
        cv2.resize(_read(folder / "test" / "images" / f"{name}.jpg"), size[::-1], None, 0, 0, 3) for name in names
    ]
    labels = [
        cv2.resize(_read(folder / "test" / "labels" / f"{name}.png", grey=True), size[::-1], None, 0, 0, 0)
        for name in names
    ]
    return Scenes(np.stack(images).astype(np.uint8), np.stack(labels).astype(np.uint8))


def _read(path: Path, grey: bool = False) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise FileNotFoundError(f"{path} is missing or no image; delete its folder and run again")
    return np.asarray(image, np.uint8)


def crop(
    image: Image, label: Labels, size: tuple[int, int], scales: tuple[float, float], random: np.random.Generator
) -> tuple[Image, Labels]:
    """A random window of the scene enlarged by a random scale, `size` (H, W), flipped half of the time."""
    height, width = label.shape
    scale = np.exp(random.uniform(*np.log(scales)))
    squeeze = np.exp(random.uniform(-0.15, 0.15))
    h = min(height, round(size[0] / (scale * squeeze)))
    w = min(width, round(size[1] * squeeze / scale))
    top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
    way = slice(None, None, -1) if random.random() < 0.5 else slice(None)
    window = np.ascontiguousarray(image[top : top + h, left : left + w][:, way])
    truth = np.ascontiguousarray(label[top : top + h, left : left + w][:, way])
    mode = cv2.INTER_AREA if h > size[0] else cv2.INTER_LINEAR
    resized = cv2.resize(window, size[::-1], interpolation=mode)
    return resized.astype(np.uint8), cv2.resize(truth, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def jitter(image: Image, random: np.random.Generator) -> Pixels:
    """(H, W, 3) uint8 to float32 in [0, 1] under strong random changes of colour, light, haze, sharpness and noise.

    Labels stay true under each. No domain is imitated: the ranges are broad so that no look of the drawn streets can
    be relied on.
    """
    x = image.astype(np.float32) / 255.0
    x = _colour(x, random)
    if random.random() < 0.35:
        x = _haze(x, random)
    if random.random() < 0.35:
        sigma = random.uniform(0.3, 1.6)
        x = cv2.GaussianBlur(x, (0, 0), sigma).astype(np.float32)
    elif random.random() < 0.25:
        x = x + random.uniform(0.3, 1.5) * (x - cv2.GaussianBlur(x, (0, 0), 1.2))
    if random.random() < 0.4:
        x = x + random.normal(0.0, random.uniform(0.01, 0.08), (*x.shape[:2], random.choice([1, 3])))
    return np.asarray(np.clip(x, 0.0, 1.0), np.float32)


def _colour(x: Pixels, random: np.random.Generator) -> Pixels:
    """Exposure, contrast, gamma, saturation, a colour cast, a mix of the channels."""
    if random.random() < 0.8:
        grey = x.mean(2, keepdims=True)
        x = grey + (x - grey) * random.uniform(0.0, 1.8)
    if random.random() < 0.5:
        x = x * random.uniform(0.75, 1.25, 3)
    if random.random() < 0.15:
        mix = np.eye(3)[random.permutation(3)] + random.normal(0.0, 0.15, (3, 3))
        x = x @ np.asarray((mix / mix.sum(1, keepdims=True)).T, np.float32)
    if random.random() < 0.8:
        x = np.clip(x, 0.0, 1.0) ** np.exp(random.uniform(-0.8, 0.8))
    if random.random() < 0.8:
        mean = x.mean()
        x = mean + (x - mean) * np.exp(random.uniform(-0.8, 0.5)) + random.uniform(-0.25, 0.25)
    if random.random() < 0.03:
        x = 1.0 - x
    return np.asarray(np.clip(x, 0.0, 1.0), np.float32)


def _haze(x: Pixels, random: np.random.Generator) -> Pixels:
    """A veil of one colour, thickest around a random row."""
    rows = np.linspace(0.0, 1.0, x.shape[0], dtype=np.float32)[:, None, None]
    veil = np.exp(-(((rows - random.uniform(0.2, 0.7)) / random.uniform(0.15, 1.0)) ** 2)) * random.uniform(0.2, 0.9)
    colour = random.uniform(0.1, 1.0) * random.uniform(0.85, 1.0, 3)
    return np.asarray(x * (1.0 - veil) + veil * colour, np.float32)

"""Stand-ins: a method that knows classes by their colours, and small data sets painted in those colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from dgss.interfaces import Batch, Method, ParameterGroup, SampleGenerator
from dgss.labels import LabelMap, LabelSpace, label_space


@dataclass(frozen=True)
class ColourPrediction:
    distances: Tensor

    def scores(self, size: tuple[int, int]) -> Tensor:
        return -interpolate(self.distances, size, mode="nearest")


class ColourMethod(Method):
    """Scores fall with the distance to a class's colour: right on every painted image."""

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.labels = labels
        self.register_buffer("colours", torch.tensor(labels.colours) / 255)  # (K, 3)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.calls: list[tuple[int, ...]] = []

    def forward(self, images: Tensor, valid: Tensor | None = None) -> ColourPrediction:
        assert not self.training
        self.calls.append(tuple(images.shape))
        return ColourPrediction((images[:, None] - self.colours[:, :, None, None]).square().sum(2) * self.weight)

    def losses(self, prediction: object, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        raise NotImplementedError


def blocks(height: int, width: int, classes: int, seed: int, side: int = 8) -> LabelMap:
    """Random blocks of classes, (height, width) uint8."""
    cells = np.random.default_rng(seed).integers(0, classes, (-(-height // side), -(-width // side)), np.uint8)
    return np.kron(cells, np.ones((side, side), np.uint8))[:height, :width]


def paint(label: LabelMap, space: str) -> NDArray[np.uint8]:
    return label_space(space).colour(label)


def write_streets(root: Path, count: int = 4, size: tuple[int, int] = (32, 64), split: str = "train") -> Path:
    """`count` painted images in the Cityscapes layout below root/streets-game."""
    folder, space = root / "streets-game", label_space("cityscapes19")
    for seed in range(count):
        label = blocks(*size, 19, seed)
        stem = f"drawnstreets-game_{seed:06}_000019"
        images = folder / "leftImg8bit" / split / "drawnstreets-game"
        labels = folder / "gtFine" / split / "drawnstreets-game"
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        Image.fromarray(space.colour(label)).save(images / f"{stem}_leftImg8bit.png")
        Image.fromarray(label).save(labels / f"{stem}_gtFine_labelTrainIds.png")
        Image.fromarray(np.array(space.raw_ids, np.uint8)[label]).save(labels / f"{stem}_gtFine_labelIds.png")
    return folder


def write_camvid(root: Path, count: int = 3, size: tuple[int, int] = (36, 48), split: str = "test") -> Path:
    """`count` frames in CamVid's layout in `root`; the images are painted in the colours of Cityscapes' classes."""
    city, cam = label_space("cityscapes19"), label_space("camvid11")
    (root / split / "images").mkdir(parents=True)
    (root / split / "labels").mkdir()
    for seed in range(count):
        label = blocks(*size, 19, seed, side=12)
        Image.fromarray(city.colour(label)).save(root / split / "images" / f"f{seed}.jpg", quality=100, subsampling=0)
        Image.fromarray(city.fold(cam)[label]).save(root / split / "labels" / f"f{seed}.png")
    (root / f"{split}.txt").write_text("".join(f"f{seed}\n" for seed in range(count)))
    return root

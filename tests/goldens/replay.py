"""What stands in for the parts of a model that a golden only records: towers and random draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from load import Golden
from torch import Tensor, nn

from dgss.interfaces import ImageFeatures, ImageTower, SampleGenerator, TextTower
from dgss.labels import LabelSpace
from dgss.towers.pyramid import Pyramid


def tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(np.array(golden.array(name)))


def space(names: Sequence[str]) -> LabelSpace:
    """A label space of these class names."""
    count = len(names)
    return LabelSpace("golden", tuple(names), ((0, 0, 0),) * count, tuple(range(count)), (False,) * count)


class RecordedTower(ImageTower):
    """The recorded taps through our own `Pyramid`; the recorded embeddings."""

    def __init__(self, taps: Sequence[Tensor], pooled: Tensor | None = None, dense: Tensor | None = None) -> None:
        super().__init__()
        width = taps[0].shape[1]
        self.channels = (width,) * 4
        self.text_width = None if dense is None else dense.shape[1]
        self.blocks = nn.ModuleList()
        self.pyramid = Pyramid(width)
        self.recorded = (list(taps), pooled, dense)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        taps, pooled, dense = self.recorded
        return ImageFeatures(self.pyramid(taps), pooled, dense)

    def frozen_copy(self, train: bool = False) -> ImageTower:
        raise NotImplementedError


class RecordedText(TextTower):
    """Recorded answers: `prompted` (K, E) with contexts, `fixed` (K, E) without."""

    def __init__(self, prompted: Tensor, fixed: Tensor, token_width: int) -> None:
        super().__init__()
        self.width, self.token_width, self.context_length = fixed.shape[1], token_width, 77
        self.prompted, self.fixed = prompted, fixed

    def tokens(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), 5, dtype=torch.long)

    def embed(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, self.token_width)

    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        return self.fixed if embedded.shape[1] == ids.shape[1] else self.prompted


class RecordedDraws(SampleGenerator):
    """Plays back draws that were made for all images together: each image gets its rows, in the order of the calls.

    draws: (N, P, 2) each, rows image by image (`counts`), or (1, P, 2) for one image alone, named by its number.
    """

    def __init__(self, count: int) -> None:
        self.queues: list[list[Tensor]] = [[] for _ in range(count)]

    def add(self, draw: Tensor, counts: Sequence[int]) -> None:
        """A draw for all images: `counts` rows each."""
        for queue, part in zip(self.queues, torch.split(draw, list(counts)), strict=True):
            queue.append(part)

    def add_one(self, image: int, draw: Tensor) -> None:
        """A draw for one image."""
        self.queues[image].append(draw)

    def uniform(self, image: int, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        draw = self.queues[image].pop(0)
        assert draw.shape == tuple(shape), f"asked for {tuple(shape)}, recorded {tuple(draw.shape)}"
        return draw

    def assert_used(self) -> None:
        assert not any(self.queues), "not every recorded draw was asked for"

"""Stand-in towers of a few thousand weights: what a method needs of a tower, and nothing else.

towers = tiny_towers(seed=0)
method = TqdmSettings(width=32, heads=4).build(towers, label_space("cityscapes19"), torch.Generator())
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from dgss.interfaces import Batch, ImageFeatures, ImageTower, TextTower, Towers
from dgss.towers.base import FrozenCopy

START, END, WORDS = 1, 2, 512


class TinyImageTower(ImageTower):
    """Five strided convolutions: levels at strides 4, 8, 16, 32 (sizes rounded up), text space at `dense_level`.

    frozen_norm: the statistics of its batch norm stay as they are, as in the mini tower.
    """

    def __init__(
        self,
        text_width: int = 12,
        channels: tuple[int, ...] = (8, 12, 16, 20),
        dense_level: int = 0,
        frozen_norm: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.text_width = channels, text_width
        self.temperature = 8.0
        self.dense_level, self.frozen_norm = dense_level, frozen_norm
        self.stem = nn.Conv2d(3, channels[0], 3, 2, 1)
        self.norm = nn.BatchNorm2d(channels[0])
        before = (channels[0], *channels[:-1])
        self.blocks = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(before, channels, strict=True))
        self.projection = nn.Conv2d(channels[dense_level], text_width, 1)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        x = (images - 0.5) / 0.25
        if valid is not None:
            x = x * valid[:, None]
        x = gelu(self.norm(self.stem(x)))
        levels = []
        for block in self.blocks:
            x = gelu(block(x))
            levels.append(x)
        dense = self.projection(levels[self.dense_level])
        return ImageFeatures(levels=tuple(levels), pooled=dense.mean((2, 3)), dense=dense)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.norm.train(mode and not self.frozen_norm)
        return self

    def frozen_copy(self, train: bool = False) -> ImageTower:
        return FrozenCopy(self, train)


class TinyTextTower(TextTower):
    """Words to vectors by a table, one mixing layer, masked mean of all tokens; frozen. `calls` counts encodings."""

    def __init__(self, width: int = 12, token_width: int = 10, context_length: int = 24) -> None:
        super().__init__()
        self.width, self.token_width, self.context_length = width, token_width, context_length
        self.table = nn.Embedding(WORDS, token_width)
        self.positions = nn.Parameter(0.1 * torch.randn(context_length, token_width))
        self.mix = nn.Linear(token_width, token_width)
        self.out = nn.Linear(token_width, width)
        self.calls = 0
        self.requires_grad_(False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        rows = [[START, *(3 + zlib.crc32(w.encode()) % (WORDS - 3) for w in text.split()), END] for text in texts]
        longest = max(len(row) for row in rows)
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        self.calls += 1
        contexts = embedded.shape[1] - ids.shape[1]
        real = torch.cat([ids.new_ones(len(ids), contexts), (ids != 0).long()], 1)[..., None]  # (K, n + T, 1)
        x = embedded + self.positions[: embedded.shape[1]]
        x = x + torch.tanh(self.mix(x))
        return self.out((x * real).sum(1) / real.sum(1))


def tiny_towers(seed: int = 0, dense_level: int = 0, text: bool = True, frozen_norm: bool = True) -> Towers:
    """A pair of stand-in towers, the same for the same seed; global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image = TinyImageTower(dense_level=dense_level, frozen_norm=frozen_norm)
        return Towers(image.train(), TinyTextTower() if text else None)


def tiny_batch(
    size: tuple[int, int] = (32, 48), count: int = 2, classes: int = 19, seed: int = 0, ignored: float = 0.1
) -> Batch:
    """Random images; labels in blocks of 8 x 8 pixels, the share `ignored` of the pixels is 255."""
    draw = torch.Generator().manual_seed(seed)
    h, w = size
    coarse = torch.randint(0, classes, (count, -(-h // 8), -(-w // 8)), generator=draw)
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :h, :w].clone()
    labels[torch.rand(labels.shape, generator=draw) < ignored] = 255
    images = torch.rand(count, 3, h, w, generator=draw)
    return Batch(images, labels, torch.ones(count, h, w, dtype=torch.bool), torch.arange(count))

"""Levels that a tower hands over before their last step: doubling a map's size, done together with what reads it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def double(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A transposed convolution of kernel and stride 2: (B, C, h, w) to (B, D, 2h, 2w).

    weight: (C, D, 2, 2); bias: (D,). The 2 x 2 patches do not overlap, so it is one matrix product: on a CPU several
    times faster than torch's own, most of all backward.
    """
    (b, _, h, w), width = x.shape, len(bias)
    cells = linear(x.flatten(2).transpose(1, 2), weight.flatten(1).T, bias.repeat_interleave(4))  # (B, h*w, D*4)
    return cells.view(b, h, w, width, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, width, 2 * h, 2 * w)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution of kernel and stride 2."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside, 2, 2)
        self.bias: nn.Parameter  # torch's class allows None, this one has it

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # of one fixed size of the answer
        """(B, C, h, w) to (B, D, 2h, 2w)."""
        return double(x, self.weight, self.bias)


@dataclass(frozen=True)
class Doubled:
    """A level that `up` is still to make of `map` (B, C, h, w)."""

    map: Tensor
    up: Doubling

    def through(self, conv: nn.Conv2d) -> Tensor:
        """What a 1 x 1 convolution answers to the level: (B, D, 2h, 2w).

        Two linear maps in a row are one: multiplied into each other first, they cost a fraction of the two where the
        second makes fewer channels, and the wide level is never written.
        """
        narrow = conv.weight[:, :, 0, 0]  # (D, C)
        weight = torch.einsum("dc,ickl->idkl", narrow, self.up.weight)
        bias = narrow @ self.up.bias
        return double(self.map, weight, bias if conv.bias is None else bias + conv.bias)


Level = Tensor | Doubled


def whole(level: Level) -> Tensor:
    """The level itself."""
    made: Tensor = level.up(level.map) if isinstance(level, Doubled) else level
    return made

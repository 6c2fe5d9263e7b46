"""The pixel decoder: four levels of a tower become mask features and three memories.

Mask2Former's (Cheng et al., CVPR 2022, Sec. 3.2.2: six layers of multi-scale deformable attention over strides 8, 16
and 32); with text, tqdm's text-to-pixel attention stands in every layer after the deformable one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dgss.decoder.attention import Attention, DeformableAttention, Shapes, reference_points, sine_positions
from dgss.levels import Doubled, Level

LEVELS = 3
"""How many levels are encoded: all but the finest."""


class PixelDecoderSettings(BaseModel):
    """The sizes of the pixel decoder, by default the published ones of Mask2Former and tqdm.

    width: D. pixel_ffn: inner width of the feed-forward parts. points_per_head: places that a token looks at per head
    and level. norm_groups: of the group norms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=256, ge=4)
    heads: int = Field(default=8, ge=1)
    pixel_layers: int = Field(default=6, ge=1)
    pixel_ffn: int = Field(default=1024, ge=1)
    points_per_head: int = Field(default=4, ge=1)
    norm_groups: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        for name, divisor in (("heads", self.heads), ("norm_groups", self.norm_groups), ("positions", 4)):
            if self.width % divisor:
                raise ValueError(f"width = {self.width}: is no multiple of {divisor} ({name})")
        return self

    def pixel_decoder(
        self, channels: Sequence[int], text_width: int | None = None, classes: int | None = None
    ) -> PixelDecoder:
        """A pixel decoder of this size; with text where `text_width` is given."""
        sizes = (self.width, self.heads, self.pixel_layers, self.pixel_ffn, self.points_per_head)
        return PixelDecoder(channels, *sizes, text_width, classes, self.norm_groups)


@dataclass(frozen=True)
class PixelMemory:
    """What the pixel decoder answers.

    mask_features: (B, D, H/4, W/4). memories: three of (B, D, h, w), coarsest first.
    """

    mask_features: Tensor
    memories: tuple[Tensor, ...]


class PixelDecoderLayer(nn.Module):
    """Deformable attention, text attention where there is text, feed-forward; each added and then normalised."""

    def __init__(self, width: int, heads: int, ffn: int, points: int, text: bool) -> None:
        super().__init__()
        self.deformable = DeformableAttention(width, heads, LEVELS, points)
        self.norm_deformable = nn.LayerNorm(width)
        self.text_attention = Attention(width, heads) if text else None
        self.norm_text = nn.LayerNorm(width) if text else None
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(inplace=True), nn.Linear(ffn, width))
        self.norm_ffn = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        shapes: Shapes,
        reference: Tensor,
        text: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """x: (B, N, D); positions: (N, D); reference: (N, 2); text: keys and values (B, K, D) -> (B, N, D)."""
        x = self.norm_deformable(x + self.deformable(x + positions, x, shapes, reference))
        if self.text_attention is not None and self.norm_text is not None and text is not None:
            keys, values = text
            x = self.norm_text(x + self.text_attention(x + positions, keys, values))
        out: Tensor = self.norm_ffn(x + self.ffn(x))
        return out


class Projection(nn.Sequential):
    """A level at the decoder's width: 1 x 1 convolution and group norm (eps 1e-5)."""

    def __init__(self, channels: int, width: int, groups: int, bias: bool) -> None:
        super().__init__(_conv(channels, width, 1, bias), nn.GroupNorm(groups, width))

    def forward(self, level: Level) -> Tensor:
        """(B, C, h, w) -> (B, D, h, w)."""
        conv, norm = self
        assert isinstance(conv, nn.Conv2d)
        projected: Tensor = norm(level.through(conv) if isinstance(level, Doubled) else conv(level))
        return projected


class PixelDecoder(nn.Module):
    """Levels (and text) in, `PixelMemory` out; made for maps of any size.

    channels: of the four levels, finest first. text_width: E of the text tokens, None for Mask2Former's own decoder;
    classes: how many text tokens there are. norm_groups: of the group norms (eps 1e-5).
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        heads: int,
        layers: int,
        ffn: int,
        points: int,
        text_width: int | None = None,
        classes: int | None = None,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        finest, *coarser = channels
        self.input_projections = nn.ModuleList(
            Projection(count, width, norm_groups, bias=True) for count in reversed(coarser)
        )
        self.level_encoding = nn.Parameter(torch.randn(LEVELS, width))
        self.text_projection = None if text_width is None else nn.Linear(text_width, width)
        self.text_positions = None if text_width is None else nn.Parameter(torch.randn(classes or 1, width))
        self.layers = nn.ModuleList(
            PixelDecoderLayer(width, heads, ffn, points, text_width is not None) for _ in range(layers)
        )
        # tqdm's encoder ends with a norm, Mask2Former's does not
        self.post_norm = nn.Identity() if text_width is None else nn.LayerNorm(width)
        self.lateral = Projection(finest, width, norm_groups, bias=False)
        self.output = nn.Sequential(_conv(width, width, 3, bias=False), nn.GroupNorm(norm_groups, width), nn.ReLU())
        self.mask_features = nn.Conv2d(width, width, 1)

    def forward(self, levels: Sequence[Level], text: Tensor | None = None) -> PixelMemory:
        """levels: four of (B, C_l, h_l, w_l), finest first; text: (B, K, E), not normalised."""
        maps = [project(level) for project, level in zip(self.input_projections, reversed(levels[1:]), strict=True)]
        shapes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)  # (B, N, D)
        positions = self._positions(shapes, x)
        reference = reference_points(shapes, x.device)
        tokens = self._text(text)
        for layer in self.layers:
            x = layer(x, positions, shapes, reference, tokens)
        parts = self.post_norm(x).split([h * w for h, w in shapes], 1)
        memories = tuple(part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True))
        fine = self.lateral(levels[0])
        fine = fine + interpolate(memories[-1], fine.shape[2:], mode="bilinear", align_corners=False)
        return PixelMemory(self.mask_features(self.output(fine)), memories)

    def _positions(self, shapes: Shapes, like: Tensor) -> Tensor:
        """Sine code plus the level's own vector, (N, D)."""
        width = like.shape[2]
        codes = [sine_positions(h, w, width, like.device).to(like.dtype) for h, w in shapes]
        return torch.cat([code + level for code, level in zip(codes, self.level_encoding, strict=True)])

    def _text(self, text: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Keys (with positions) and values (without), (B, K, D) each."""
        if self.text_projection is None or self.text_positions is None or text is None:
            return None
        values = self.text_projection(text)
        return values + self.text_positions, values


def _conv(inside: int, outside: int, kernel: int, bias: bool) -> nn.Conv2d:
    """A convolution that a norm follows: Kaiming normal by fan-out, bias 0."""
    conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv

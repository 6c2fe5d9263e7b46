"""The mini vision-language model: a small image tower and a small text tower of one joint space.

Image: EfficientNet-Lite0 (Tan and Le, "EfficientNet" (2019), in Google's Lite variant: ReLU6, no squeeze-excite) with
a top-down path (Lin et al., "Feature Pyramid Networks" (2017), Fig. 3) that ends in text space. Text: two transformer
blocks distilled from the sentence encoder all-MiniLM-L6-v2. `weights/CARD.md` tells how both were made and what they
score. It is no CLIP: its image side has seen drawn streets and their labels, not the web.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, normalize, scaled_dot_product_attention

from dgss.errors import DataError
from dgss.interfaces import ImageFeatures, TextTower
from dgss.towers.base import NormalizedTower, Triple
from dgss.towers.wordpiece import WordPieces

TEXT_WIDTH = 384
_NECK_WIDTH = 96
_TAPS = (1, 2, 4, 6)  # the stages, counted from 0, after which the strides are 4, 8, 16, 32
_SMALLEST_SIDE = 32


class MiniImageTower(NormalizedTower):
    """EfficientNet-Lite0, four levels, and a dense map in text space.

    dense: the smoothed stride-4 map of the top-down path, projected to the text width; with `dense_stride` 8 it is
    averaged over 2x2 cells first. pooled: the mean of the unit-length dense vectors. Any H, W from 32; sizes that a
    stride does not divide round up, since TensorFlow's SAME padding does. With `frozen_norm` batch norm uses, and
    keeps, its running statistics in training too.
    """

    channels = (24, 40, 112, 320)
    text_width = TEXT_WIDTH

    def __init__(
        self,
        mean: Triple = (0.5, 0.5, 0.5),
        std: Triple = (0.5, 0.5, 0.5),
        dense_stride: int = 4,
        frozen_norm: bool = True,
        temperature: float | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.temperature = temperature
        self.dense_stride = dense_stride
        self.frozen_norm = frozen_norm
        encoder = _efficientnet_lite0()
        self.conv_stem, self.bn1 = encoder.get_submodule("conv_stem"), encoder.get_submodule("bn1")
        self.blocks = nn.ModuleList(encoder.get_submodule("blocks").children())
        self.laterals = nn.ModuleList(nn.Conv2d(width, _NECK_WIDTH, 1) for width in self.channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(_NECK_WIDTH, _NECK_WIDTH, 3, padding=1), nn.GroupNorm(8, _NECK_WIDTH), nn.GELU()
        )
        self.projection = nn.Conv2d(_NECK_WIDTH, TEXT_WIDTH, 1)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""
        levels = self.levels(images, valid)
        cells = self.neck(levels)  # (B, 96, H/4, W/4)
        if self.dense_stride == 8:
            # averaging before the projection equals averaging after it, since the projection is linear
            cells = avg_pool2d(cells, 2, ceil_mode=True, count_include_pad=False)
        dense = self.projection(cells)
        pooled = normalize(dense, dim=1).mean((2, 3))
        return ImageFeatures(levels=levels, pooled=pooled, dense=dense)

    def levels(self, images: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """The encoder's maps (B, C_l, H/s_l, W/s_l), finest first."""
        if min(images.shape[-2:]) < _SMALLEST_SIDE:
            raise DataError(
                f"images of {tuple(images.shape[-2:])} pixels (height, width) are too small for the mini tower; "
                f"both sides need at least {_SMALLEST_SIDE}"
            )
        # channels last takes a fifth off a training step on a CPU; every later map inherits it
        x = self.normalise(images, valid).contiguous(memory_format=torch.channels_last)
        x = self.bn1(self.conv_stem(x))
        taps = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in _TAPS:
                taps.append(x)
        return tuple(taps)

    def neck(self, levels: Sequence[Tensor]) -> Tensor:
        """Four levels to one map (B, 96, H/4, W/4): laterals, bilinear sum from coarse to fine, smoothing."""
        top: Tensor = self.laterals[-1](levels[-1])
        for lateral, level in zip(reversed(self.laterals[:-1]), reversed(levels[:-1]), strict=True):
            finer: Tensor = lateral(level)
            top = finer + interpolate(top, finer.shape[-2:], mode="bilinear", align_corners=False)
        smoothed: Tensor = self.smooth(top)
        return smoothed

    def train(self, mode: bool = True) -> Self:
        """Batch norm stays in eval mode where `frozen_norm` says so."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def _efficientnet_lite0() -> nn.Module:
    """timm's EfficientNet-Lite0 in the form of the converted TensorFlow weights, before any weights."""
    import timm

    encoder: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    return encoder


class WordEmbedding(nn.Module):
    """A table of token embeddings in int8 with one scale a row: a quarter of the size, the same answers."""

    rows: Tensor
    scales: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(count, width, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(count))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (K, T) to embeddings (K, T, D_t)."""
        return self.rows[ids].to(self.scales.dtype) * self.scales[ids][..., None]


class TextBlock(nn.Module):
    """A transformer block with its norms in front; tokens look at all real tokens, before and behind them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """x: (K, N, D_t); real: (K, N) bool, False where padded. Returns (K, N, D_t)."""
        count, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(count, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (K, heads, N, D_t / heads) each
        seen = scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None])
        x = x + self.out(seen.transpose(1, 2).reshape(count, length, width))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class MiniTextTower(TextTower):
    """Word pieces, two transformer blocks, the mean over real tokens, a linear map to the text width.

    Its answers have unit length and are centred: the mean over the street classes was taken off what it was taught,
    so that classes stand apart (`weights/CARD.md`). Frozen, but gradients reach what is passed to `encode`.
    """

    width = TEXT_WIDTH
    token_width = 128
    context_length = 64

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__()
        self.pieces = WordPieces(vocabulary)
        self.words = WordEmbedding(len(self.pieces), self.token_width)
        self.positions = nn.Parameter(torch.zeros(self.context_length, self.token_width))
        self.blocks = nn.ModuleList(TextBlock(self.token_width, heads=4) for _ in range(2))
        self.norm = nn.LayerNorm(self.token_width)
        self.head = nn.Linear(self.token_width, self.width)
        self.requires_grad_(False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids (K, T), int64, padded; T is the longest text's. Raises `DataError` where a text is too long."""
        rows = [self.pieces.ids(text) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            self._check_length(len(row), f"the text {text[:60]!r}")
        longest = max(map(len, rows), default=0)
        return torch.tensor([row + [self.pieces.pad] * (longest - len(row)) for row in rows], dtype=torch.int64)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (K, T) to token embeddings (K, T, D_t), before positions are added."""
        embedded: Tensor = self.words(ids.to(self.words.rows.device))
        return embedded

    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """Token embeddings (K, n + T, D_t) and ids (K, T) to text embeddings (K, E) of unit length.

        The n learned contexts stand right after the start token and count as real tokens.
        """
        length = embedded.shape[1]
        contexts = length - ids.shape[1]
        self._check_length(length, f"a prompt with {contexts} learned contexts")
        real = ids.to(embedded.device) != self.pieces.pad
        learned = real.new_ones(len(ids), contexts)
        real = torch.cat([real[:, :1], learned, real[:, 1:]], dim=1)  # (K, n + T)
        x = embedded + self.positions[:length]
        for block in self.blocks:
            x = block(x, real)
        weight = real[..., None].to(x.dtype)
        mean = (self.norm(x) * weight).sum(1) / weight.sum(1)
        return normalize(self.head(mean), dim=-1)

    def _check_length(self, length: int, what: str) -> None:
        if length > self.context_length:
            raise DataError(f"{what} has {length} tokens, the mini text tower reads {self.context_length}; shorten it")

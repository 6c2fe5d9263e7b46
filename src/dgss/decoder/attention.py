"""What both decoders attend with: sine positions, dense attention, multi-scale deformable attention.

Deformable attention: Zhu et al., "Deformable DETR", ICLR 2021, Sec. 4.1, Eq. (3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, grid_sample, linear, scaled_dot_product_attention

Shapes = Sequence[tuple[int, int]]
"""The sizes (h, w) of the levels, in the order of their tokens."""


def sine_positions(h: int, w: int, width: int, device: torch.device | None = None) -> Tensor:
    """A code for every cell of an h x w map: (h*w, width), row-major, the row's half first.

    Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, Sec. A.4, normalised to 2 pi.
    """
    half = width // 2
    channel = torch.arange(half, dtype=torch.float32, device=device)
    divisor = 10000 ** (2 * (channel // 2) / half)
    parts = []
    for size in (h, w):
        place = torch.arange(1, size + 1, dtype=torch.float32, device=device) / (size + 1e-6) * (2 * math.pi)
        angle = place[:, None] / divisor  # (size, half)
        # even channels sine, odd channels cosine
        parts.append(torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1))
    rows, columns = parts
    grid = torch.cat([rows[:, None].expand(h, w, half), columns[None].expand(h, w, half)], 2)
    return grid.reshape(h * w, width)


def reference_points(shapes: Shapes, device: torch.device | None = None) -> Tensor:
    """The middle of every cell of every level as a share of width and height: (N, 2), last axis (x, y)."""
    points = []
    for h, w in shapes:
        y = (torch.arange(h, dtype=torch.float32, device=device) + 0.5) / h
        x = (torch.arange(w, dtype=torch.float32, device=device) + 0.5) / w
        points.append(torch.stack([x[None].expand(h, w), y[:, None].expand(h, w)], 2).reshape(h * w, 2))
    return torch.cat(points)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, Sec. 3.2) whose one mask serves all heads.

    Weights and first values are those of `torch.nn.MultiheadAttention`, which would want the mask once per head.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """query: (B, Q, D); key, value: (B, N, D); allowed: (B, Q, N) bool, True = may look there -> (B, Q, D)."""
        weights, biases = self.in_weight.chunk(3), self.in_bias.chunk(3)
        q, k, v = (
            linear(x, weight, bias).view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, N, D / heads)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=None if allowed is None else allowed[:, None])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class DeformableAttention(nn.Module):
    """Every token looks at `points` places per head and level, chosen by itself around its own place."""

    def __init__(self, width: int, heads: int, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        """Head i looks in direction 2 pi i / heads, point p at distance p + 1, all with equal weight."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], 1)  # (heads, 2)
        direction = direction / direction.abs().amax(1, keepdim=True)
        distance = torch.arange(1, self.points + 1)[:, None]
        offsets = (direction[:, None, None] * distance).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))

    def forward(self, query: Tensor, tokens: Tensor, shapes: Shapes, reference: Tensor) -> Tensor:
        """query: (B, N, D) tokens with positions; tokens: (B, N, D) without; reference: (N, 2) -> (B, N, D)."""
        grid = (self.heads, self.levels, self.points)
        value = self.value(tokens).unflatten(2, (self.heads, -1))  # (B, N, heads, D / heads)
        # places need 32 bits, also under autocast, where linear layers answer in 16
        precise = torch.promote_types(value.dtype, torch.float32)
        offsets = self.sampling_offsets(query).to(precise).unflatten(2, (*grid, 2))
        weights = self.attention_weights(query).to(precise).unflatten(2, (self.heads, -1)).softmax(3)
        sizes = offsets.new_tensor([[w, h] for h, w in shapes])[:, None]  # (levels, 1, 2)
        locations = reference.to(precise)[:, None, None, None] + offsets / sizes
        mixed = deformable_core(value.to(precise), shapes, locations, weights.unflatten(3, grid[1:]))
        out: Tensor = self.out(mixed.to(value.dtype))
        return out


def deformable_core(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of bilinear samples, zeros outside the map; a coordinate of 0 or 1 is the map's border.

    value: (B, N, heads, d); locations: (B, Q, heads, levels, points, 2) as (x, y); weights: (B, Q, heads, levels,
    points). Answers (B, Q, heads * d).
    """
    # the bag is several times faster on a CPU; compilers and exporters know only grid_sample well
    if value.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.onnx.is_in_onnx_export():
        return core_by_bag(value, shapes, locations, weights)
    return core_by_grid(value, shapes, locations, weights)


def core_by_grid(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_core` with one `grid_sample` per level."""
    b, _, heads, d = value.shape
    queries = locations.shape[1]
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * heads, Q, levels, points, 2)
    share = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B * heads, 1, Q, levels, points)
    total = value.new_zeros(b * heads, d, queries)
    for level, part in enumerate(torch.split(value, [h * w for h, w in shapes], 1)):
        plane = part.permute(0, 2, 3, 1).reshape(b * heads, d, *shapes[level])
        sampled = grid_sample(
            plane, grid[:, :, level], mode="bilinear", align_corners=False
        )  # (B * heads, d, Q, points)
        total = total + (sampled * share[..., level, :]).sum(-1)
    return total.view(b, heads * d, queries).transpose(1, 2)


def core_by_bag(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_core` as a weighted bag: rows of `value` are summed with attention x bilinear x inside weights.

    Nothing of size queries x heads x samples x channels is ever written. The gradient of the weights is torch's own,
    that of the values is `_BagGradient`.
    """
    b, n, heads, d = value.shape
    queries = locations.shape[1]
    # 32-bit indices are the faster ones; larger tables need 64
    kind = torch.int32 if b * n * heads < 2**31 else torch.int64
    image = torch.arange(b, dtype=kind, device=value.device)[:, None] * (n * heads)
    row = (image + torch.arange(heads, dtype=kind, device=value.device))[:, None, :, None]  # (B, 1, heads, 1)
    indices, factors, start = [], [], 0
    for level, (h, w) in enumerate(shapes):
        x, y = (locations[:, :, :, level] * value.new_tensor([w, h]) - 0.5).unbind(-1)  # (B, Q, heads, points)
        columns, rows = _corners(x, w, kind), _corners(y, h, kind)
        share = weights[:, :, :, level]
        for place_y, weight_y in rows:
            partial = weight_y * share
            first = (start + place_y * w) * heads + row
            for place_x, weight_x in columns:
                indices.append(first + place_x * heads)
                factors.append(partial * weight_x)
        start += h * w
    bags = torch.cat(indices, 3).view(b * queries * heads, -1)
    scale = torch.cat(factors, 3).view(b * queries * heads, -1)
    table = value.reshape(-1, d)
    mixed = embedding_bag(bags, table.detach(), mode="sum", per_sample_weights=scale)
    out: Tensor = _BagGradient.apply(mixed, table, bags, scale.detach())
    return out.view(b, queries, heads * d)


class _BagGradient(torch.autograd.Function):
    """Hands `mixed` on as it is, and to `table` its gradient: one product with the transposed sparse matrix of weights.

    torch's own gradient of a bag sorts all indices and is several times slower.
    """

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, table: Tensor, bags: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(bags, scale)
        ctx.rows = len(table)
        return mixed.view_as(mixed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        bags, scale = (saved.numpy() for saved in ctx.saved_tensors)
        count, each = bags.shape
        starts = np.arange(0, count * each + 1, each, dtype=bags.dtype)
        weights = csr_array((scale.ravel(), bags.ravel(), starts), shape=(count, ctx.rows))
        return grad, torch.from_numpy(weights.T @ grad.numpy()), None, None


def _corners(place: Tensor, size: int, kind: torch.dtype) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two cells beside each place along one axis, each with its bilinear weight (0 outside the map)."""
    with torch.no_grad():
        low = place.floor()
        low_inside = (low >= 0) & (low <= size - 1)
        high_inside = (low >= -1) & (low < size - 1)
        # converted before it is clamped: a place that is not a number must still give a legal index
        cell = low.to(kind)
        low_cell, high_cell = cell.clamp(0, size - 1), (cell + 1).clamp(0, size - 1)
    share = place - low
    return (low_cell, (1 - share) * low_inside), (high_cell, share * high_inside)

"""The mask decoder: queries look at the memories inside their own masks (masked attention).

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022, Sec. 3.2.1, Eq. (2), (3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dgss.decoder.attention import Attention, sine_positions
from dgss.decoder.pixel_decoder import LEVELS, PixelDecoderSettings, PixelMemory
from dgss.interfaces import ParameterGroup


class DecoderSettings(PixelDecoderSettings):
    """The sizes of both decoders. decoder_ffn: inner width of the mask decoder's feed-forward parts."""

    decoder_layers: int = Field(default=9, ge=1)
    decoder_ffn: int = Field(default=2048, ge=1)

    def mask_decoder(self, classes: int) -> MaskDecoder:
        """A mask decoder of this size."""
        return MaskDecoder(self.width, self.heads, self.decoder_layers, self.decoder_ffn, classes)


def published_groups(
    method: nn.Module, tower_lr_scale: float, embeddings: Collection[str] = ()
) -> list[ParameterGroup]:
    """Mask2Former's rule: the part `tower` at a lower rate; outside it no decay for norm layers and `embeddings`."""
    norms = {id(p) for m in method.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm) for p in m.parameters()}
    found = defaultdict[str, list[tuple[str, nn.Parameter]]](list)
    for name, parameter in method.named_parameters():
        if name.startswith("tower."):
            group = "tower"
        else:
            group = "undecayed" if id(parameter) in norms or name in embeddings else "head"
        if parameter.requires_grad:
            found[group].append((name, parameter))
    scales = {"tower": (tower_lr_scale, 1.0), "undecayed": (1.0, 0.0), "head": (1.0, 1.0)}
    return [ParameterGroup(group, tuple(rows), *scales[group]) for group, rows in found.items()]


class MaskDecoderLayer(nn.Module):
    """Masked cross attention, self attention, feed-forward; each added and then normalised."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.cross_attention = Attention(width, heads)
        self.norm_cross = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.norm_self = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(inplace=True), nn.Linear(ffn, width))
        self.norm_ffn = nn.LayerNorm(width)

    def forward(self, q: Tensor, positions: Tensor, keys: Tensor, values: Tensor, allowed: Tensor) -> Tensor:
        """q: (B, Q, D); positions: (Q, D); keys, values: (B, N, D); allowed: (B, Q, N) bool -> (B, Q, D)."""
        q = self.norm_cross(q + self.cross_attention(q + positions, keys, values, allowed))
        placed = q + positions
        q = self.norm_self(q + self.self_attention(placed, placed, q))
        out: Tensor = self.norm_ffn(q + self.ffn(q))
        return out


class MaskDecoder(nn.Module):
    """Queries in, L + 1 predictions out: one from the queries as given, one after every layer."""

    def __init__(self, width: int, heads: int, layers: int, ffn: int, classes: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(MaskDecoderLayer(width, heads, ffn) for _ in range(layers))
        self.post_norm = nn.LayerNorm(width)
        self.class_embed = nn.Linear(width, classes + 1)
        self.mask_embed = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def start_from_zero(self) -> None:
        """Every first mask and class logit is 0: what is added to them is then the first answer."""
        for layer in (self.mask_embed[-1], self.class_embed):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, queries: Tensor, query_positions: Tensor, memory: PixelMemory, mask_prior: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Mask logits (B, Q, H/4, W/4) and class logits (B, Q, K + 1), L + 1 of each.

        queries: (B, Q, D); query_positions: (Q, D); mask_prior: (B, Q, H/4, W/4), added to the mask logits of every
        prediction.
        """
        keys, values = self._memory(memory)
        small = _resized(memory, mask_prior)
        q, states, embeddings = queries, [], []
        for index in range(len(self.layers) + 1):
            state = self.post_norm(q)  # the flow itself goes on from the state before this norm
            embedding = self.mask_embed(state)
            states.append(state)
            embeddings.append(embedding)
            if index < len(self.layers):
                level = index % LEVELS
                allowed = attention_mask(embedding, *small[level])
                q = self.layers[index](q, query_positions, keys[level], values[level], allowed)
        masks = torch.einsum("blqc,bchw->blqhw", torch.stack(embeddings, 1), memory.mask_features)
        if mask_prior is not None:
            masks = masks + mask_prior[:, None]
        classes = self.class_embed(torch.stack(states, 1))  # (B, L + 1, Q, K + 1)
        return masks.unbind(1), classes.unbind(1)

    def _memory(self, memory: PixelMemory) -> tuple[list[Tensor], list[Tensor]]:
        """Keys (with sine positions) and values (without) of each level, (B, h*w, D)."""
        values = [m.flatten(2).transpose(1, 2) + e for m, e in zip(memory.memories, self.level_embed, strict=True)]
        sizes = [m.shape[2:] for m in memory.memories]
        keys = [
            v + sine_positions(h, w, v.shape[2], v.device).to(v.dtype) for v, (h, w) in zip(values, sizes, strict=True)
        ]
        return keys, values


def attention_mask(embedding: Tensor, features: Tensor, prior: Tensor | None) -> Tensor:
    """Where each query may look: (B, Q, h*w) bool; everywhere, where its mask is empty. No gradient.

    embedding: (B, Q, D); features: (B, D, h, w) and prior: (B, Q, h, w) at the level's size.
    """
    logits = embedding.detach() @ features.flatten(2)
    if prior is not None:
        logits = logits + prior.flatten(2)
    allowed = logits >= 0  # sigmoid >= 0.5
    return allowed | ~allowed.any(2, keepdim=True)


def _resized(memory: PixelMemory, prior: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Mask features and prior at the size of every memory, without gradient.

    The references resize each layer's mask logits. Resizing is linear, so resize(q . F) = q . resize(F), and one
    resize per level serves all layers.
    """
    features = memory.mask_features.detach()
    sizes = [(int(m.shape[2]), int(m.shape[3])) for m in memory.memories]
    priors = [None if prior is None else shrink(prior.detach(), size) for size in sizes]
    return [(shrink(features, size), small) for size, small in zip(sizes, priors, strict=True)]


def shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x: (B, C, H, W) at `size`, bilinear, align_corners false, no antialias.

    For one even whole factor that reads only the middle 2 x 2 of each cell, which slices do faster.
    """
    (h, w), (to_h, to_w) = x.shape[2:], size
    factor = h // to_h
    if factor % 2 or (h, w) != (to_h * factor, to_w * factor):
        return interpolate(x, size, mode="bilinear", align_corners=False)
    low, high = factor // 2 - 1, factor // 2
    rows = x[:, :, low::factor] + x[:, :, high::factor]
    return (rows[..., low::factor] + rows[..., high::factor]) * 0.25

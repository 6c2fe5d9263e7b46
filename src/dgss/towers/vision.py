"""Plain vision transformers of timm as image towers: one scale inside, four levels out.

timm gives the blocks; how an image becomes tokens is said here, for there the published segmenters differ from timm:
the remainder of a size that the patch does not divide is never read, and position tables are resized without antialias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dgss.errors import DataError
from dgss.interfaces import ImageFeatures
from dgss.towers.base import FrozenCopy, NormalizedTower, Triple
from dgss.towers.pyramid import Pyramid

Resize = Literal["bilinear", "bicubic"]
"""How a table of positions becomes one of another size: without antialias and without aligned corners."""


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int], how: Resize) -> Tensor:
    """A position table (1, P + h*w, C), P rows of prefix tokens first, for a grid of `new` cells (h, w).

    The rows of the prefix stay as they are; so does everything where the sizes are equal.
    """
    if old == new:
        return table
    cells = old[0] * old[1]
    prefix, grid = table[:, :-cells], table[:, -cells:].view(1, *old, -1).permute(0, 3, 1, 2)
    resized = interpolate(grid.float(), new, mode=how, align_corners=False).to(table.dtype)
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2)], 1)


class PlainViT(NormalizedTower):
    """A ViT of timm (`VisionTransformer`, `Eva`) with four taps.

    trunk: made with `dynamic_img_size=True`. taps: after which blocks (0-based, four) the levels are taken, before any
    norm. resize: of the position table, when the grid is not the one it was made for. double_class: the class token
    enters with its embedding twice. text_width: E, of what the trunk's head answers; None where it has no text partner.
    """

    def __init__(
        self,
        trunk: Any,
        mean: Triple,
        std: Triple,
        taps: Sequence[int],
        resize: Resize = "bicubic",
        double_class: bool = False,
        text_width: int | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.trunk, self.taps, self.resize, self.double_class = trunk, tuple(taps), resize, double_class
        self.text_width = text_width
        self.patch: int = trunk.patch_embed.patch_size[0]
        self.grid: tuple[int, int] = tuple(trunk.patch_embed.grid_size)
        self.prefix: int = trunk.num_prefix_tokens
        width = trunk.embed_dim
        self.pyramid: Pyramid | None = Pyramid(width)
        self.channels = (width,) * 4

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]  # the trunk owns them: kept here too, they were saved twice
        """The transformer blocks, where adapters and hooks attach."""
        found: nn.ModuleList = self.trunk.blocks
        return found

    def forward(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        """images: (B, 3, H, W) float in [0, 1], RGB, at least two patches high and wide; valid: (B, H, W) bool."""
        x, grid = self.tokens(self.normalise(images, valid))
        rope = None if getattr(self.trunk, "rope", None) is None else self.trunk.rope.get_embed(grid)
        maps = {}
        for number, block in enumerate(self.blocks):
            x = block(x) if rope is None else block(x, rope=rope)
            if number in self.taps:
                maps[number] = self._map(x[:, self.prefix :], grid)
        levels = () if self.pyramid is None else self.pyramid([maps[number] for number in self.taps])
        if self.text_width is None:
            return ImageFeatures(levels)
        x = self.trunk.norm(x)
        return ImageFeatures(levels, self.trunk.forward_head(x), self._map(self._alone(x[:, self.prefix :]), grid))

    def frozen_copy(self, train: bool = False) -> FrozenCopy:
        """As every tower's, without levels: a twelfth of the work, and no loss compares them."""
        copy = super().frozen_copy(train)
        assert isinstance(copy.tower, PlainViT)
        copy.tower.pyramid = None
        return copy

    @property
    def embedding_trains(self) -> bool:
        """Whether what it says in text space changes in training: the pyramid may train alone."""
        return any(parameter.requires_grad for parameter in self.trunk.parameters())

    def tokens(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised images (B, 3, H, W) to tokens (B, P + h*w, C), prefix first, and their grid (h, w)."""
        trunk, grid = self.trunk, (images.shape[2] // self.patch, images.shape[3] // self.patch)
        if min(grid) < 2:  # the coarsest level is half as fine
            raise DataError(
                f"an image of {images.shape[2]}x{images.shape[3]} pixels has fewer than two patches of the tower, "
                f"{self.patch}x{self.patch}, on a side; enlarge it"
            )
        patches = trunk.patch_embed.proj(images).flatten(2).transpose(1, 2)  # floors: the remainder is never read
        x = trunk.patch_embed.norm(patches)
        prefix = [token for token in (trunk.cls_token, trunk.reg_token) if token is not None]
        table = None if trunk.pos_embed is None else resize_positions(trunk.pos_embed, self.grid, grid, self.resize)
        if table is not None and trunk.no_embed_class:  # no rows for the prefix
            x, table = x + table, None
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in prefix), x], 1)
        if table is not None:
            if self.double_class:  # tqdm and DenseCLIP add it to its position, too (clip/models.py of both)
                table = torch.cat([table[:, :1] + trunk.cls_token, table[:, 1:]], 1)
            x = x + table
        return trunk.norm_pre(x), grid

    def _alone(self, patches: Tensor) -> Tensor:
        """Every patch in text space: what the trunk's head would answer if this patch were all it saw. (B, N, E)

        Where the head reads the class token, that is its projection of the patch; where it pools by attention, the
        pool of one token, whose weight is 1 (as MaskCLIP reads an attention pool: Zhou et al., ECCV 2022, Sec. 3.2).
        """
        trunk = self.trunk
        if trunk.attn_pool is not None:
            patches = trunk.attn_pool(patches.flatten(0, 1)[:, None]).unflatten(0, patches.shape[:2])
        found: Tensor = trunk.head(trunk.fc_norm(patches))
        return found

    def _map(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, h*w, C) to (B, C, h, w)."""
        return patches.transpose(1, 2).reshape(len(patches), -1, *grid)

"""From the maps of one scale, as a plain ViT has them, to four scales.

Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022, Sec. 3; the form with one
batch norm that CLIP-based segmenters took over from BEiT.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dgss.levels import Doubled, Doubling, Level


class Pyramid(nn.Module):
    """Four maps of stride s to strides s/4, s/2, s and 2s, `width` channels each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # the only batch statistics of the model: the references synchronise them over processes
        self.up4 = nn.Sequential(Doubling(width, width), nn.BatchNorm2d(width), nn.GELU(), Doubling(width, width))
        self.up2 = Doubling(width, width)
        self.down2 = nn.MaxPool2d(2, 2)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Level, ...]:
        """maps: four of (B, C, h, w) -> (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h//2, w//2)."""
        first, second, third, fourth = maps
        last = self.up4[-1]
        assert isinstance(last, Doubling)
        return Doubled(self.up4[:-1](first), last), Doubled(second, self.up2), third, self.down2(fourth)

"""The deformable attention core against transformers', forward, and forward and backward, in one process.

    python benchmarks/deformable_attention.py [--threads 1] [--repeats 5]

One layer, 8 heads, 4 points, places about two cells around each token. Both forms of this package are timed: the
weighted bag, which a CPU takes, and one `grid_sample` a level, for compilers, exporters and other devices. The last
line is bag / peer of forward and backward at the 512 crop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from common import arguments, compared, paired
from torch import Tensor

from dgss.decoder.attention import core_by_bag, core_by_grid, reference_points

Shapes = tuple[tuple[int, int], ...]
# images, levels, heads, channels a head: the mini model, a 128 crop, a 512 crop
CASES: tuple[tuple[int, Shapes, int, int], ...] = (
    (8, ((3, 6), (6, 12), (12, 24)), 8, 12),
    (1, ((4, 4), (8, 8), (16, 16)), 8, 32),
    (1, ((16, 16), (32, 32), (64, 64)), 8, 32),
)
Core = Callable[..., Tensor]


def inputs(b: int, shapes: Shapes, heads: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, places and weights."""
    draw = torch.Generator().manual_seed(0)
    tokens = sum(h * w for h, w in shapes)
    sizes = torch.tensor([[w, h] for h, w in shapes])[:, None]
    offsets = 2 * torch.randn(b, tokens, heads, len(shapes), 4, 2, generator=draw) / sizes
    weights = torch.rand(b, tokens, heads, len(shapes) * 4, generator=draw).softmax(3).view(*offsets.shape[:-1])
    value = torch.randn(b, tokens, heads, channels, generator=draw)
    return value, reference_points(shapes)[None, :, None, None, None] + offsets, weights


def run(core: Core, shapes: Shapes, given: tuple[Tensor, Tensor, Tensor], backward: bool) -> Tensor:
    """One pass; its answer."""
    value, locations, weights = (x.detach().clone().requires_grad_(backward) for x in given)
    answer = core(value, shapes, locations, weights)
    if backward:
        torch.autograd.backward(answer.square().sum())
    return answer.detach()


def main() -> None:
    """All sizes, both forms."""
    from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention as peer

    options, ratio = arguments(__doc__), 0.0
    for b, shapes, heads, channels in CASES:
        given = inputs(b, shapes, heads, channels)
        tokens = sum(h * w for h, w in shapes)
        difference = (run(core_by_bag, shapes, given, False) - run(peer, shapes, given, False)).abs().max()
        print(f"{b} x {tokens} tokens, largest difference {float(difference):.0e}")
        for name, core in (("grid_sample", core_by_grid), ("bag", core_by_bag)):
            for backward in (False, True):
                ours, theirs = (partial(run, form, shapes, given, backward) for form in (core, peer))
                times = paired(ours, theirs, options.repeats)
                ratio = compared(f"  {name}, forward{' and backward' if backward else ''}", *times)
    print(f"{ratio:.2f}")


if __name__ == "__main__":
    main()

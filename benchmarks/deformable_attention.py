"""The deformable attention core against one `grid_sample` per level, forward and backward, in one process.

    python benchmarks/deformable_attention.py [--threads 1] [--repeats 5]

The last line is the ratio of the medians at the largest size: above 1 the weighted bag is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dgss.decoder.attention import core_by_bag, core_by_grid, reference_points

# images, levels, heads, channels a head
CASES = (
    (8, ((3, 6), (6, 12), (12, 24)), 8, 12),
    (2, ((8, 8), (16, 16), (32, 32)), 8, 32),
    (1, ((16, 16), (32, 32), (64, 64)), 8, 32),
)
Core = Callable[..., Tensor]


def inputs(b: int, shapes: tuple[tuple[int, int], ...], heads: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, places about two cells around each token, and weights."""
    draw = torch.Generator().manual_seed(0)
    tokens = sum(h * w for h, w in shapes)
    sizes = torch.tensor([[w, h] for h, w in shapes])[:, None]
    offsets = 2 * torch.randn(b, tokens, heads, len(shapes), 4, 2, generator=draw) / sizes
    weights = torch.rand(b, tokens, heads, len(shapes) * 4, generator=draw).softmax(3).view(*offsets.shape[:-1])
    value = torch.randn(b, tokens, heads, channels, generator=draw)
    return value, reference_points(shapes)[None, :, None, None, None] + offsets, weights


def seconds(core: Core, shapes: tuple[tuple[int, int], ...], given: tuple[Tensor, Tensor, Tensor]) -> float:
    """One forward and backward pass."""
    value, locations, weights = (x.clone().requires_grad_() for x in given)
    begin = time.perf_counter()
    torch.autograd.backward(core(value, shapes, locations, weights).sum())
    return time.perf_counter() - begin


def main() -> None:
    """Times both forms in turn, so that a busy machine slows both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for b, shapes, heads, channels in CASES:
        given = inputs(b, shapes, heads, channels)
        times: dict[str, list[float]] = {"grid": [], "bag": []}
        for _ in range(arguments.repeats + 1):
            times["grid"].append(seconds(core_by_grid, shapes, given))
            times["bag"].append(seconds(core_by_bag, shapes, given))
        grid, bag = (statistics.median(times[name][1:]) for name in ("grid", "bag"))
        tokens = sum(h * w for h, w in shapes)
        print(f"{b} x {tokens} tokens: grid_sample {1000 * grid:.1f} ms, bag {1000 * bag:.1f} ms")
    print(f"{grid / bag:.2f}")


if __name__ == "__main__":
    main()

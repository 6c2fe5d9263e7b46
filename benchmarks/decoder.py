"""Pixel and mask decoder against transformers' Mask2Former at a 512 crop: 256 channels, 100 queries, batch 1.

    python benchmarks/decoder.py [--threads 1] [--repeats 5]

Forward, forward and backward, and the peak of memory of one step in a fresh process. The last line is ours / peer of
forward and backward.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from common import arguments, compared, paired, peer_config
from torch import Tensor, nn

from dgss.decoder.mask_decoder import MaskDecoder
from dgss.decoder.pixel_decoder import PixelDecoder

WIDTH, QUERIES, CLASSES = 256, 100, 19
Step = Callable[[bool], None]


def levels() -> list[Tensor]:
    """Four maps of a tower at strides 4 to 32 of a 512 crop."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(1, WIDTH, 512 // stride, 512 // stride, generator=draw) for stride in (4, 8, 16, 32)]


def ours() -> Step:
    """The decoders of this package."""
    pixel = PixelDecoder([WIDTH] * 4, WIDTH, 8, 6, 1024, 4)
    masks = MaskDecoder(WIDTH, 8, 9, 2048, CLASSES)
    content, positions = (nn.Parameter(torch.randn(QUERIES, WIDTH)) for _ in range(2))
    maps = levels()

    def step(backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            found, classes = masks(content[None], positions, pixel(maps))
            total = torch.stack([x.mean() for x in (*found, *classes)]).sum()
            if backward:
                torch.autograd.backward(total)

    return step


def theirs() -> Step:
    """Those of transformers, with the same sizes."""
    from transformers.models.mask2former.modeling_mask2former import (
        Mask2FormerPixelDecoder,
        Mask2FormerTransformerModule,
    )

    config = peer_config(QUERIES, CLASSES)
    pixel = Mask2FormerPixelDecoder(config, feature_channels=[WIDTH] * 4)
    nn.init.normal_(pixel.level_embed)  # left as it is by the part alone
    masks, classes = Mask2FormerTransformerModule(WIDTH, config), nn.Linear(WIDTH, CLASSES + 1)
    maps = levels()

    def step(backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            memory = pixel(maps)
            found = masks(list(memory.multi_scale_features), memory.mask_features, output_hidden_states=True)
            logits = [classes(state.transpose(0, 1)) for state in found.intermediate_hidden_states]
            total = torch.stack([x.mean() for x in (*found.masks_queries_logits, *logits)]).sum()
            if backward:
                torch.autograd.backward(total)

    return step


def memory(which: str) -> float:
    """The peak of one step in a process of its own, in MB above what the model itself takes."""
    answer = subprocess.run([sys.executable, __file__, f"--{which}"], capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])


def measure(which: str) -> None:
    """In that process."""
    torch.set_num_threads(1)
    step = ours() if which == "ours" else theirs()
    before = in_memory("VmRSS")
    step(True)
    print(in_memory("VmHWM") - before)


def in_memory(key: str) -> float:
    """MB of this process now (VmRSS) or at most so far (VmHWM), as Linux counts them."""
    row = next(row for row in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if row.startswith(key))
    return int(row.split()[1]) / 1024


def main() -> None:
    """All comparisons."""
    given = arguments(__doc__)
    mine, other = ours(), theirs()
    compared("forward", *paired(lambda: mine(False), lambda: other(False), given.repeats))
    ratio = compared("forward and backward", *paired(lambda: mine(True), lambda: other(True), given.repeats))
    own, peer = memory("ours"), memory("theirs")
    print(f"memory of a step: ours {own:.0f} MB, peer {peer:.0f} MB, ratio {own / peer:.2f}")
    print(f"{ratio:.2f}")


if __name__ == "__main__":
    if sys.argv[1:] in (["--ours"], ["--theirs"]):
        measure(sys.argv[1].removeprefix("--"))
    else:
        main()

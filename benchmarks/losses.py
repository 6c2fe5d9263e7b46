"""Matching and losses over ten predictions against transformers' Mask2FormerLoss, forward and backward.

    python benchmarks/losses.py [--threads 1] [--repeats 5]

Two images of 512x512 with 19 classes each, masks of 128x128, 12544 points. The last line is ours / peer at 100 queries.
"""

from __future__ import annotations

import torch
from common import arguments, compared, paired, peer_config
from torch import Tensor

from dgss.interfaces import ImageFeatures, MaskPrediction, SampleGenerator
from dgss.losses.mask_losses import MaskLossSettings, mask_losses, summed
from dgss.losses.matching import Match, fixed, hungarian, mask_targets

LAYERS, IMAGES, CLASSES, SIDE = 10, 2, 19, 512


def labels() -> Tensor:
    """Every class in every image: blocks of 32 pixels."""
    draw = torch.Generator().manual_seed(0)
    blocks = torch.randint(CLASSES, (IMAGES, SIDE // 32, SIDE // 32), generator=draw)
    blocks.view(IMAGES, -1)[:, :CLASSES] = torch.arange(CLASSES)
    return blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)


def logits(queries: int) -> tuple[list[Tensor], list[Tensor]]:
    """Masks and classes of every prediction."""
    draw = torch.Generator().manual_seed(1)
    masks = [torch.randn(IMAGES, queries, SIDE // 4, SIDE // 4, generator=draw) for _ in range(LAYERS)]
    classes = [torch.randn(IMAGES, queries, CLASSES + 1, generator=draw) for _ in range(LAYERS)]
    return [m.requires_grad_() for m in masks], [c.requires_grad_() for c in classes]


def compare(queries: int, match: Match | None, repeats: int) -> float:
    """One comparison. match: None for the assignment at fresh points, as the peer's."""
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    target, settings = labels(), MaskLossSettings()
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    peer = Mask2FormerLoss(peer_config(queries), weights)
    masks, classes = logits(queries)

    def ours() -> None:
        draws = SampleGenerator(0, range(IMAGES))
        prediction = MaskPrediction(ImageFeatures(()), tuple(masks), tuple(classes))
        chosen = match or hungarian((2.0, 5.0, 5.0), settings.points, draws)
        terms = mask_losses(prediction, mask_targets(target, CLASSES), chosen, settings, draws)
        torch.autograd.backward(torch.stack(list(summed(terms).values())).sum())

    def theirs() -> None:
        present = [torch.arange(CLASSES) for _ in range(IMAGES)]
        planes = [(image == torch.arange(CLASSES)[:, None, None]).float() for image in target]
        earlier = [
            {"masks_queries_logits": m, "class_queries_logits": c}
            for m, c in zip(masks[:-1], classes[:-1], strict=True)
        ]
        found = peer(masks[-1], classes[-1], planes, present, earlier)
        total = torch.stack(
            [value * weight for name, value in found.items() for key, weight in weights.items() if key in name]
        )
        torch.autograd.backward(total.sum())

    how = "fixed" if match else "assigned"
    return compared(f"{queries} queries, {how}, {LAYERS} predictions", *paired(ours, theirs, repeats))


def main() -> None:
    """All three comparisons."""
    given = arguments(__doc__)
    compare(19, fixed, given.repeats)
    compare(19, None, given.repeats)
    print(f"{compare(100, None, given.repeats):.2f}")


if __name__ == "__main__":
    main()

"""What a set of masks and their classes pays: class term, BCE and dice at chosen points, for every prediction.

Beside it the plain cross-entropy of pixels, which some methods pay too.

Cheng et al., "Masked-attention Mask Transformer", CVPR 2022, Sec. 3.3: 2 L_class + 5 L_bce + 5 L_dice, at points chosen
by uncertainty (Sec. 3.3 there; PointRend, Kirillov et al., CVPR 2020, Sec. 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, distributed
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from dgss.interfaces import MaskPrediction, SampleGenerator
from dgss.labels import IGNORE
from dgss.losses.matching import MaskTargets, Match, sample


class MaskLossSettings(BaseModel):
    """Weights of the terms, and at how many points a mask is compared.

    Of `oversample` x `points` candidates the share `importance` of `points` nearest to the mask's border is kept, the
    rest is drawn anew.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_weight: float = Field(default=2.0, ge=0)
    mask_weight: float = Field(default=5.0, ge=0)
    dice_weight: float = Field(default=5.0, ge=0)
    no_object: float = Field(default=0.1, gt=0)
    points: int = Field(default=12544, ge=1)
    oversample: float = Field(default=3.0, ge=1)
    importance: float = Field(default=0.75, ge=0, le=1)
    # the reference programs divide the class term by the weights of one process alone
    per_process: bool = False
    # mmdet's sampler counts an image that shows no class as one matched mask
    empty_counts_one: bool = False

    @model_validator(mode="after")
    def _something_is_paid(self) -> Self:
        if not (self.class_weight or self.mask_weight or self.dice_weight):
            raise ValueError("class_weight = 0: mask_weight and dice_weight are 0, too, so no mask learns; raise one")
        return self


def mask_losses(
    prediction: MaskPrediction,
    targets: MaskTargets,
    match: Match,
    settings: MaskLossSettings,
    generator: SampleGenerator,
) -> list[dict[str, Tensor]]:
    """For every layer's prediction its weighted terms `class`, `mask` and `dice` (those of weight 0 are absent).

    Computed in float32, also under autocast.
    """
    terms = []
    with torch.autocast(prediction.mask_logits[0].device.type, enabled=False):
        for masks, classes in zip(prediction.mask_logits, prediction.class_logits, strict=True):
            masks, classes = masks.float(), classes.float()
            queries = match(masks.detach(), classes.detach(), targets)
            found: dict[str, Tensor] = {}
            if settings.class_weight:
                found["class"] = settings.class_weight * class_loss(classes, queries, targets, settings)
            if settings.mask_weight or settings.dice_weight:
                bce, dice = point_losses(masks, queries, targets, settings, generator)
                found |= {"mask": settings.mask_weight * bce} if settings.mask_weight else {}
                found |= {"dice": settings.dice_weight * dice} if settings.dice_weight else {}
            terms.append(found)
    return terms


def summed(terms: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The last prediction's terms by name, those of all earlier ones together as `NAME.earlier`."""
    result = dict(terms[-1])
    for name in terms[-1]:
        if len(terms) > 1:
            result[f"{name}.earlier"] = torch.stack([layer[name] for layer in terms[:-1]]).sum()
    return result


def class_loss(logits: Tensor, queries: Sequence[Tensor], targets: MaskTargets, settings: MaskLossSettings) -> Tensor:
    """Weighted cross-entropy of all queries; those that answer for nothing learn "no object" with a small weight.

    logits: (B, Q, K + 1). The divisor is the sum of the weights.
    """
    nothing = logits.shape[2] - 1
    wanted = torch.full(logits.shape[:2], nothing, dtype=torch.long, device=logits.device)
    for row, chosen, found in zip(wanted, queries, targets.classes, strict=True):
        row[chosen] = found
    weights = logits.new_ones(nothing + 1)
    weights[nothing] = settings.no_object
    total = cross_entropy(logits.flatten(0, 1), wanted.flatten(), weights, reduction="sum")
    return total / divisor(weights[wanted].sum(), per_process=settings.per_process)


def point_losses(
    masks: Tensor,
    queries: Sequence[Tensor],
    targets: MaskTargets,
    settings: MaskLossSettings,
    generator: SampleGenerator,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice of the matched masks at their points, each the sum over masks / their number.

    masks: (B, Q, h, w). Without any matched mask both are 0, still connected to `masks`.
    """
    image = torch.repeat_interleave(
        torch.arange(len(masks), device=masks.device), torch.tensor(targets.counts, device=masks.device)
    )
    logits = masks[image, torch.cat(list(queries))][:, None]  # (N, 1, h, w)
    matched = sum(max(count, int(settings.empty_counts_one)) for count in targets.counts)
    count = divisor(masks.new_tensor(float(matched)), at_least=1.0)
    if not len(logits):
        return logits.sum(), logits.sum()
    points = choose_points(logits.detach(), targets.counts, settings, generator)
    point_logits = sample(logits, points)[:, 0]  # (N, P)
    point_targets = sample(targets.masks, points)[:, 0]
    bce = binary_cross_entropy_with_logits(point_logits, point_targets, reduction="none").mean(1).sum()
    probabilities = point_logits.sigmoid()
    overlap = (probabilities * point_targets).sum(1)
    dice = 1 - (2 * overlap + 1) / (probabilities.sum(1) + point_targets.sum(1) + 1)
    return bce / count, dice.sum() / count


@torch.no_grad()
def choose_points(
    logits: Tensor, counts: Sequence[int], settings: MaskLossSettings, generator: SampleGenerator
) -> Tensor:
    """For every mask the points where it is least sure, and some more: (N, P, 2), (x, y) in [0, 1].

    logits: (N, 1, h, w); counts: masks per image. Each image draws its candidates, then its further points.
    """

    def drawn(each: int) -> Tensor:
        shapes = [(count, each, 2) for count in counts]
        return torch.cat([generator.uniform(i, shape, logits.device) for i, shape in enumerate(shapes)])

    kept = int(settings.importance * settings.points)
    candidates = drawn(int(settings.oversample * settings.points))
    index = smallest(sample(logits, candidates)[:, 0].abs(), kept)[..., None].expand(-1, -1, 2)
    return torch.cat([candidates.gather(1, index), drawn(settings.points - kept)], 1)


def smallest(values: Tensor, count: int) -> Tensor:
    """Where the `count` smallest of each row stand, in no order. values: (N, M) -> (N, count)."""
    on_cpu = values.device.type == "cpu"  # there NumPy's partial sort is the faster one by several times
    return smallest_by_numpy(values, count) if on_cpu else smallest_by_torch(values, count)


def smallest_by_numpy(values: Tensor, count: int) -> Tensor:
    """`smallest` on the CPU."""
    return torch.from_numpy(np.argpartition(values.numpy(), count - 1, axis=1)[:, :count])


def smallest_by_torch(values: Tensor, count: int) -> Tensor:
    """`smallest` on any device."""
    return values.topk(count, 1, largest=False, sorted=False).indices


def pixel_cross_entropy(logits: Tensor, labels: Tensor, over_ignored: bool = False) -> Tensor:
    """Cross-entropy of the logits (B, K, h, w) enlarged to the labels (B, H, W), mean over the labelled pixels.

    over_ignored: the divisor counts the ignored pixels too.
    """
    enlarged = interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    total = cross_entropy(enlarged, labels, ignore_index=IGNORE, reduction="sum")
    counted = labels.numel() if over_ignored else int((labels != IGNORE).sum())
    return total / divisor(total.new_tensor(float(counted)), at_least=1.0)


def divisor(amount: Tensor, at_least: float = 0.0, per_process: bool = False) -> Tensor:
    """What a sum of one process is divided by, so that the mean over processes is that of one large batch.

    amount: scalar, this process's share of the divisor. per_process: leave the other processes out.
    """
    processes = 1
    if distributed.is_available() and distributed.is_initialized() and not per_process:
        processes = distributed.get_world_size()
        amount = amount.clone()
        distributed.all_reduce(amount)
    return amount.clamp(min=at_least) / processes

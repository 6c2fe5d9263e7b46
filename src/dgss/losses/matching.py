"""What an image holds, and which query answers for which of its classes: by place, or by the cheapest assignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import grid_sample, softplus

from dgss.errors import DataError
from dgss.interfaces import SampleGenerator
from dgss.labels import IGNORE


@dataclass(frozen=True)
class MaskTargets:
    """What B images hold.

    classes: (n_b,) each, ascending. masks: (N, 1, H, W) float, 0 or 1, N = the sum of all n_b, image by image.
    """

    classes: tuple[Tensor, ...]
    masks: Tensor

    @property
    def counts(self) -> list[int]:
        """How many classes each image holds."""
        return [len(present) for present in self.classes]


Match = Callable[[Tensor, Tensor, MaskTargets], list[Tensor]]
"""Mask logits (B, Q, h, w), class logits (B, Q, K + 1) and targets to the query of every target, (n_b,) an image."""


def pixels_by_class(labels: Tensor, classes: int) -> Tensor:
    """How many pixels each image has of each class: (B, K) int64, on the CPU. labels: (B, H, W) int64.

    Raises `DataError` where a label is neither a class nor ignored.
    """
    b = len(labels)
    # all that is below 0 in the first of 258 bins, all above 255 in the last: no number counts for the next image
    values = labels.flatten(1).clamp(-1, 256).add_(258 * torch.arange(b, device=labels.device)[:, None] + 1)
    counts = torch.bincount(values.flatten(), minlength=258 * b).view(b, 258).cpu()
    known = counts[:, 1 : classes + 1]
    if int(known.sum() + counts[:, IGNORE + 1].sum()) < labels.numel():
        wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= classes))]
        value = int(wrong.min())
        raise DataError(
            f"a batch holds label {value} in {int((wrong == value).sum())} of {labels.numel()} pixels, but there are "
            f"{classes} classes (0 to {classes - 1}; {IGNORE} is ignored): check the label space of the data"
        )
    return known


def mask_targets(labels: Tensor, classes: int) -> MaskTargets:
    """One binary mask for each class that an image shows. labels: (B, H, W) int64.

    Ignored pixels are 0 in every mask, so they count as background, as in the reference programs. Raises `DataError`
    where a label is neither a class nor ignored.
    """
    present = [row.nonzero()[:, 0].to(labels.device) for row in pixels_by_class(labels, classes)]
    masks = [image == found[:, None, None] for image, found in zip(labels, present, strict=True)]
    return MaskTargets(tuple(present), torch.cat(masks)[:, None].float())


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps (N, C, h, w) at points (N, P, 2), (x, y) in [0, 1], zeros outside -> (N, C, P)."""
    return grid_sample(maps, 2 * points[:, None] - 1, mode="bilinear", align_corners=False)[:, :, 0]


def fixed(masks: Tensor, classes: Tensor, targets: MaskTargets) -> list[Tensor]:
    """Query k answers for class k, whatever it says (a `Match`; tqdm, ECCV 2024)."""
    return list(targets.classes)


def hungarian(weights: tuple[float, float, float], points: int, generator: SampleGenerator) -> Match:
    """The cheapest assignment of queries to classes, image by image, costs measured at fresh points.

    Cheng et al., CVPR 2022 (Mask2Former), after Carion et al., ECCV 2020, Eq. (1). weights: of class, mask and dice.
    """

    @torch.no_grad()
    def match(masks: Tensor, classes: Tensor, targets: MaskTargets) -> list[Tensor]:
        places = torch.stack([generator.uniform(i, (points, 2), masks.device) for i in range(len(masks))])
        point_logits = sample(masks, places)  # (B, Q, P)
        matched = []
        for i, mask in enumerate(torch.split(targets.masks, targets.counts)):
            point_targets = sample(mask, places[i].expand(len(mask), -1, -1))[:, 0]  # (n_b, P)
            cost = pair_costs(classes[i], point_logits[i], targets.classes[i], point_targets, weights)
            matched.append(assign(cost))
        return matched

    return match


def pair_costs(
    class_logits: Tensor, masks: Tensor, classes: Tensor, targets: Tensor, weights: tuple[float, float, float]
) -> Tensor:
    """What it costs to let each query answer for each target: (Q, n).

    class_logits: (Q, K + 1); masks: logits (Q, P) at P points; classes: (n,); targets: (n, P) in [0, 1]; weights of
    the negative probability of the class, of binary cross-entropy and of dice.
    """
    chosen = -class_logits.softmax(1)[:, classes]
    # the mean over the points of BCE(x, t) = softplus(x) - x t, for all pairs by one product
    mask = (softplus(masks).sum(1, keepdim=True) - masks @ targets.T) / masks.shape[1]
    probabilities = masks.sigmoid()
    dice = 1 - (2 * probabilities @ targets.T + 1) / (probabilities.sum(1, keepdim=True) + targets.sum(1) + 1)
    return weights[0] * chosen + weights[1] * mask + weights[2] * dice


def assign(cost: Tensor) -> Tensor:
    """The query of every target where the sum of costs is least. cost: (Q, n) -> (n,)."""
    if cost.shape[0] < cost.shape[1]:
        raise DataError(
            f"an image holds {cost.shape[1]} classes, but there are {cost.shape[0]} queries: set at least as many "
            f"queries as classes"
        )
    # a model that has diverged must end as a loss that is not finite, not here
    queries, targets = linear_sum_assignment(torch.nan_to_num(cost).cpu().numpy())
    order = torch.empty(cost.shape[1], dtype=torch.long)
    order[torch.from_numpy(targets)] = torch.from_numpy(queries)
    return order.to(cost.device)

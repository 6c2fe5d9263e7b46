from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from dgss.errors import DataError
from dgss.interfaces import SampleGenerator
from dgss.losses.matching import assign, fixed, hungarian, mask_targets, pair_costs


@pytest.mark.parametrize(("queries", "targets"), [(1, 0), (1, 1), (3, 2), (3, 3), (6, 1), (6, 4), (6, 6)])
def test_assignment_is_the_cheapest_of_all(queries: int, targets: int) -> None:
    """Broken by taking each target's cheapest query."""
    cost = torch.randn(queries, targets, generator=torch.Generator().manual_seed(queries * 7 + targets))
    found = assign(cost)
    best = min(sum(float(cost[q, t]) for t, q in enumerate(p)) for p in permutations(range(queries), targets))
    assert len(set(found.tolist())) == targets
    assert float(cost[found, torch.arange(targets)].sum()) == pytest.approx(best, abs=1e-5)


def test_assignment_refuses_too_few_queries_and_survives_what_is_no_number() -> None:
    with pytest.raises(DataError, match="3 classes, but there are 2 queries"):
        assign(torch.zeros(2, 3))
    assert len(assign(torch.full((3, 2), torch.nan))) == 2


def test_pair_costs_are_the_formula() -> None:
    """Broken by swapping masks and targets, or by a softmax over queries."""
    draw = torch.Generator().manual_seed(0)
    classes, masks = torch.randn(4, 6, generator=draw), 3 * torch.randn(4, 9, generator=draw)
    wanted, targets = torch.tensor([1, 4]), torch.rand(2, 9, generator=draw)
    found = pair_costs(classes, masks, wanted, targets, (2.0, 5.0, 3.0))
    for q in range(4):
        for t in range(2):
            bce = binary_cross_entropy_with_logits(masks[q], targets[t])
            p = masks[q].sigmoid()
            dice = 1 - (2 * (p * targets[t]).sum() + 1) / (p.sum() + targets[t].sum() + 1)
            cost = -2 * classes[q].softmax(0)[wanted[t]] + 5 * bce + 3 * dice
            assert float(found[q, t]) == pytest.approx(float(cost), abs=1e-5)


def test_targets_are_one_mask_a_class_and_ignored_pixels_are_in_none() -> None:
    labels = torch.tensor([[[2, 2], [0, 255]], [[255, 255], [255, 255]], [[1, 1], [1, 1]]])
    targets = mask_targets(labels, 3)
    assert [found.tolist() for found in targets.classes] == [[0, 2], [], [1]]
    assert targets.counts == [2, 0, 1]
    assert targets.masks[:, 0].tolist() == [[[0, 0], [1, 0]], [[1, 1], [0, 0]], [[1, 1], [1, 1]]]


def test_labels_outside_the_classes_are_named() -> None:
    with pytest.raises(DataError, match=r"label 7 in 1 of 2 pixels, but there are 3 classes"):
        mask_targets(torch.tensor([[[0, 7]]]), 3)


@pytest.mark.parametrize("value", [-1, -300, 256, 300, 512, 2**40])
def test_numbers_that_are_no_labels_are_told_as_they_are(value: int) -> None:
    """mutation: 300 counted as label 44 of the next image, and 256 + a class of it not at all"""
    labels = torch.zeros(3, 4, 4, dtype=torch.long)
    labels[0, 1, :3] = value
    for classes in (19, 255):
        with pytest.raises(DataError, match=rf"^a batch holds label {value} in 3 of 48 pixels, .*: check"):
            mask_targets(labels, classes)


def test_fixed_matching_takes_the_query_of_the_class() -> None:
    targets = mask_targets(torch.tensor([[[2, 0]], [[1, 1]]]), 3)
    found = fixed(torch.empty(0), torch.empty(0), targets)
    assert [queries.tolist() for queries in found] == [[0, 2], [1]]


def test_hungarian_matching_finds_the_query_that_shows_the_mask() -> None:
    """Three images, one of them without labels; queries 4, 1 and 0 hold the right masks."""
    labels = torch.zeros(3, 8, 8, dtype=torch.long)
    labels[0, :, 4:], labels[1], labels[2, :4] = 2, 255, 1
    masks = torch.full((3, 5, 8, 8), -4.0)
    masks[0, 4, :, :4], masks[0, 1, :, 4:], masks[2, 0, :4], masks[2, 3, 4:] = 4.0, 4.0, 4.0, 4.0
    match = hungarian((2.0, 5.0, 5.0), 64, SampleGenerator(0, [0, 1, 2]))
    found = match(masks, torch.zeros(3, 5, 4), mask_targets(labels, 3))
    assert [queries.tolist() for queries in found] == [[4, 1], [], [3, 0]]

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dgss.interfaces import ImageFeatures, MaskPrediction, SampleGenerator
from dgss.losses import mask_losses as module
from dgss.losses.mask_losses import (
    MaskLossSettings,
    choose_points,
    class_loss,
    divisor,
    mask_losses,
    smallest,
    smallest_by_numpy,
    smallest_by_torch,
    summed,
)
from dgss.losses.matching import MaskTargets, fixed, mask_targets, sample

SETTINGS = MaskLossSettings(points=200)


def labels_of(b: int = 2, size: int = 16, classes: int = 4, seed: int = 0) -> Tensor:
    blocks = torch.randint(0, classes, (b, size // 8, size // 8), generator=torch.Generator().manual_seed(seed))
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)


def perfect(labels: Tensor, classes: int = 4, scale: float = 30.0) -> tuple[Tensor, Tensor]:
    """Mask and class logits that say exactly what the labels say."""
    planes = torch.stack([labels == k for k in range(classes)], 1)
    present = planes.flatten(2).any(2)  # (B, K)
    wanted = torch.where(present, torch.arange(classes), classes)
    return scale * (2.0 * planes - 1), scale * torch.eye(classes + 1)[wanted]


def predicted(masks: Tensor, classes: Tensor) -> MaskPrediction:
    return MaskPrediction(ImageFeatures(()), (masks,), (classes,))


def total(terms: list[dict[str, Tensor]]) -> Tensor:
    return torch.stack([value for layer in terms for value in layer.values()]).sum()


def test_sampling_is_bilinear_with_zeros_outside() -> None:
    maps = torch.randn(2, 3, 4, 5)
    points = torch.rand(2, 40, 2) * 1.2 - 0.1
    found = sample(maps, points)
    for n, p in torch.cartesian_prod(torch.arange(2), torch.arange(40)).tolist():
        x, y = (points[n, p] * torch.tensor([5, 4]) - 0.5).tolist()
        value = torch.zeros(3)
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < 4 and 0 <= column < 5:
                    value += (1 - abs(y - row)) * (1 - abs(x - column)) * maps[n, :, row, column]
        torch.testing.assert_close(found[n, :, p], value, atol=1e-5, rtol=0)


def test_perfect_masks_cost_nothing_and_wrong_ones_much() -> None:
    """Law 16, at points away from the borders of the masks, where the truth is 0 or 1."""
    labels = labels_of()
    masks, classes = perfect(labels)
    targets = mask_targets(labels, 4)
    settings = SETTINGS.model_copy(update={"importance": 0.0})
    inner = InnerPoints(0, [0, 1])
    good = mask_losses(predicted(masks, classes), targets, fixed, settings, inner)[0]
    assert all(0 <= float(value) < 1e-3 for value in good.values()), good
    bad = mask_losses(predicted(-masks, classes.roll(1, 2)), targets, fixed, settings, inner)[0]
    assert all(float(value) > 4 for value in bad.values()), bad


class InnerPoints(SampleGenerator):
    """Points well inside the 8 x 8 blocks of a 16 x 16 image."""

    def uniform(self, image: int, shape: object, device: torch.device | None = None) -> Tensor:
        drawn = super().uniform(image, shape, device)  # type: ignore[arg-type]
        return (drawn * 2).floor() / 2 + 0.125 + 0.25 * (drawn * 2 % 1)


def test_class_loss_is_the_weighted_mean_of_cross_entropies() -> None:
    """Broken by dividing by the number of queries instead of the sum of their weights."""
    targets = mask_targets(torch.tensor([[[2, 0]], [[1, 1]]]), 3)
    logits = torch.randn(2, 3, 4)
    found = class_loss(logits, [torch.tensor([1, 2]), torch.tensor([0])], targets, SETTINGS)
    wanted = torch.tensor([[3, 0, 2], [1, 3, 3]])  # class 0 went to query 1, class 2 to query 2
    weight = torch.where(wanted == 3, 0.1, 1.0)
    each = cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
    torch.testing.assert_close(found, (each * weight.flatten()).sum() / weight.sum())


def test_most_points_lie_where_the_mask_is_least_sure() -> None:
    """Broken by keeping the surest candidates."""
    ramp = torch.linspace(-8, 8, 32).expand(1, 1, 32, 32)  # the border stands at x = 0.5
    settings = MaskLossSettings(points=1000, oversample=3.0, importance=0.75)
    points = choose_points(ramp, [1], settings, SampleGenerator(0, [0]))
    assert points.shape == (1, 1000, 2) and (points >= 0).all() and (points < 1).all()
    near = (points[0, :, 0] - 0.5).abs() < 0.15  # 30 % of the width holds 900 of 3000 candidates
    assert 0.75 < near.float().mean() < 0.92


@pytest.mark.parametrize("find", [smallest, smallest_by_numpy, smallest_by_torch])
@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_on_every_device_the_same_points_are_kept(find: Callable[[Tensor, int], Tensor], count: int) -> None:
    """Broken by the largest on the devices that the CPU does not stand for."""
    values = torch.rand(3, 20)
    index = find(values, count)
    assert index.shape == (3, count) and index.dtype == torch.int64
    assert torch.equal(values.gather(1, index).sort(1).values, values.sort(1).values[:, :count])


def test_losses_of_a_batch_are_those_of_its_images_weighted_by_their_divisors() -> None:
    """Law 1 for losses. Broken by a mean over images."""
    labels = torch.cat([labels_of(1, seed=1), torch.full((1, 16, 16), 2)])
    masks, classes = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 5)
    together = mask_losses(
        predicted(masks, classes), mask_targets(labels, 4), fixed, SETTINGS, SampleGenerator(0, [0, 1])
    )[0]
    alone, sums = [], []
    for i in range(2):
        targets = mask_targets(labels[i : i + 1], 4)
        generator = SampleGenerator(0, [i])
        alone.append(
            mask_losses(predicted(masks[i : i + 1], classes[i : i + 1]), targets, fixed, SETTINGS, generator)[0]
        )
        n = targets.counts[0]
        sums.append({"class": n + 0.1 * (4 - n), "mask": float(n), "dice": float(n)})
    for name, value in together.items():
        weighted = sum(float(part[name]) * weight[name] for part, weight in zip(alone, sums, strict=True))
        assert float(value) == pytest.approx(weighted / sum(weight[name] for weight in sums), rel=1e-5)


def test_a_weight_of_zero_leaves_the_term_out() -> None:
    labels = labels_of()
    masks, classes = perfect(labels)
    for absent in ("class", "mask", "dice"):
        settings = SETTINGS.model_copy(update={f"{absent}_weight": 0.0})
        generator = SampleGenerator(0, [0, 1])
        found = mask_losses(predicted(masks, classes), mask_targets(labels, 4), fixed, settings, generator)[0]
        assert set(found) == {"class", "mask", "dice"} - {absent}


def test_ignored_pixels_count_as_background_of_every_mask() -> None:
    """Law 17, as the references have it: a mask that claims ignored pixels pays for them."""
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[:, :, 8:] = 255
    masks = torch.full((1, 1, 16, 16), 30.0)
    targets = mask_targets(labels, 1)
    found = mask_losses(predicted(masks, torch.zeros(1, 1, 2)), targets, fixed, SETTINGS, SampleGenerator(0, [0]))[0]
    assert float(found["mask"]) > 10


def test_a_batch_without_labels_costs_no_masks_and_keeps_its_gradient() -> None:
    masks, classes = torch.randn(2, 4, 4, 4, requires_grad=True), torch.randn(2, 4, 5, requires_grad=True)
    targets = mask_targets(torch.full((2, 16, 16), 255), 4)
    found = mask_losses(predicted(masks, classes), targets, fixed, SETTINGS, SampleGenerator(0, [0, 1]))[0]
    assert found["mask"].item() == 0 and found["dice"].item() == 0 and found["class"].item() > 0
    total([found]).backward()
    assert masks.grad is not None and not masks.grad.any()


def test_losses_are_float32_under_autocast() -> None:
    labels = labels_of()
    masks, classes = (x.bfloat16() for x in perfect(labels))
    with torch.autocast("cpu", torch.bfloat16):
        terms = mask_losses(
            predicted(masks, classes), mask_targets(labels, 4), fixed, SETTINGS, SampleGenerator(0, [0, 1])
        )
    assert {value.dtype for value in terms[0].values()} == {torch.float32}


def test_the_last_prediction_stays_apart_in_the_sum() -> None:
    layers = [{"class": torch.tensor(float(i)), "mask": torch.tensor(10.0 * i)} for i in (1, 2, 4)]
    found = {name: float(value) for name, value in summed(layers).items()}
    assert found == {"class": 4.0, "mask": 40.0, "class.earlier": 3.0, "mask.earlier": 30.0}


class TwoProcesses:
    """Stands in for `torch.distributed` where the other process brings `other`."""

    def __init__(self, other: float) -> None:
        self.other = other

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, value: Tensor) -> None:
        value += self.other


def test_the_mean_over_two_processes_is_the_loss_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 11. Broken by dividing by this process's share."""
    sums, amounts = (6.0, 2.0), (3.0, 1.0)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(module, "distributed", TwoProcesses(amounts[1 - rank]))
        own = torch.tensor(amounts[rank])
        parts.append(sums[rank] / float(divisor(own)))
        assert float(own) == amounts[rank], "the argument stays as it is"
        assert float(divisor(own, per_process=True)) == amounts[rank]
        assert float(divisor(torch.tensor(0.0) - amounts[1 - rank], at_least=1.0)) == 0.5
    assert sum(parts) / 2 == pytest.approx(sum(sums) / sum(amounts))


def test_losses_do_not_depend_on_the_other_images_of_the_batch() -> None:
    """Points follow the sample's number, not its place."""
    labels = labels_of(2, seed=3)
    masks, classes = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 5)

    def found(order: list[int]) -> Tensor:
        targets: MaskTargets = mask_targets(labels[order], 4)
        return total(
            mask_losses(predicted(masks[order], classes[order]), targets, fixed, SETTINGS, SampleGenerator(0, order))
        )

    torch.testing.assert_close(found([0, 1]), found([1, 0]))

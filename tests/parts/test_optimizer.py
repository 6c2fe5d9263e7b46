"""The schedule's table, the groups of AdamW, and that each of its settings matters."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dgss.interfaces import ParameterGroup
from dgss.training.optimizer import OptimizerSettings, build_optimizer, learning_rate, set_learning_rates

TOTAL = 20_000
# step -> rates of the groups with base rate 1e-5, 1e-6, 1e-4, by the schedule of the published tqdm training
TABLE = {
    0: (1.000000e-11, 1.000000e-12, 1.000000e-10),
    750: (4.847841e-06, 5.000005e-07, 4.832625e-05),
    1500: (9.390157e-06, 1.000000e-06, 9.329172e-05),
    10000: (5.822981e-06, 1.000000e-06, 5.405279e-05),
    19999: (1.001211e-06, 1.000000e-06, 1.013326e-06),
}


@pytest.mark.parametrize("step", TABLE)
def test_poly_schedule_with_warm_up_and_a_floor_for_each_group(step: int) -> None:
    settings = OptimizerSettings()
    rates = [learning_rate(base, step, TOTAL, settings) for base in (1e-5, 1e-6, 1e-4)]
    assert rates == pytest.approx(TABLE[step], rel=5e-7)


def test_cosine_schedule_goes_from_base_to_floor_in_half_a_wave() -> None:
    settings = OptimizerSettings(schedule="cosine", warmup_steps=0, min_lr=1e-6)
    rates = [learning_rate(1e-3, step, 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3) and rates[100] == pytest.approx(1e-6)
    assert rates[50] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates[25] == pytest.approx(1e-6 + (1e-3 - 1e-6) * (1 + math.sqrt(0.5)) / 2)
    assert rates == sorted(rates, reverse=True)


def test_a_group_below_the_floor_is_not_raised_to_it() -> None:
    settings = OptimizerSettings(min_lr=1e-3, warmup_steps=0)
    assert learning_rate(0.0, 5, 10, settings) == 0.0
    assert learning_rate(1e-5, 9, 10, settings) == 1e-5


def test_groups_carry_their_scales_and_names() -> None:
    module = nn.Linear(2, 3)
    groups = [
        ParameterGroup("tower", (("linear.weight", module.weight),), lr_scale=0.1),
        ParameterGroup("norm", (("linear.bias", module.bias),), decay_scale=0.0),
    ]
    settings = OptimizerSettings(lr=1e-3, weight_decay=0.05, warmup_steps=0, min_lr=0.0)
    optimizer = build_optimizer(groups, settings)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert [group["parameter_names"] for group in optimizer.param_groups] == [["linear.weight"], ["linear.bias"]]
    set_learning_rates(optimizer, 0, 10, settings)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-3])
    set_learning_rates(optimizer, 5, 10, settings)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4 * 0.5**0.9, 1e-3 * 0.5**0.9])


CHANGES = {
    "lr": 3e-4,
    "weight_decay": 0.3,
    "betas": (0.5, 0.9),
    "eps": 0.1,
    "schedule": "cosine",
    "power": 2.0,
    "min_lr": 5e-5,
    "warmup_steps": 4,
    "warmup_ratio": 0.5,
}


def after_three_steps(settings: OptimizerSettings) -> torch.Tensor:
    weight = nn.Parameter(torch.linspace(-1, 1, 6))
    optimizer = build_optimizer([ParameterGroup("all", (("weight", weight),))], settings)
    for step in range(3):
        set_learning_rates(optimizer, step, 5, settings)
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()
    return weight.detach()


def test_every_setting_is_tried() -> None:
    assert CHANGES.keys() == OptimizerSettings.model_fields.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_training(name: str) -> None:
    base = OptimizerSettings(lr=1e-3, warmup_steps=2, warmup_ratio=0.1)
    changed = base.model_copy(update={name: CHANGES[name]})
    assert not torch.equal(after_three_steps(base), after_three_steps(changed))


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"betas": (1.0, 0.9)}, {"schedule": "step"}, {"lr": "nan"}, {"rate": 1}])
def test_wrong_settings_raise(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OptimizerSettings.model_validate(wrong)


def test_an_optimizer_may_have_nothing_to_train() -> None:
    assert build_optimizer([], OptimizerSettings()).param_groups[0]["params"] == []

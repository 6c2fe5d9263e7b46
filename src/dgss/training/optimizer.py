"""AdamW over a method's parameter groups, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from dgss.interfaces import ParameterGroup


class OptimizerSettings(BaseModel):
    """Rates and decay. Defaults: tqdm's published training on GTA5 (its config files, `optimizer` and `lr_config`).

    lr, weight_decay: of a group whose scales are 1. power: of the polynomial schedule. min_lr: no group falls below.
    warmup_steps, warmup_ratio: the rate grows linearly from `warmup_ratio` of its value over so many steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False)
    schedule: Literal["poly", "cosine"] = "poly"
    power: float = Field(default=0.9, gt=0, allow_inf_nan=False)
    min_lr: float = Field(default=1e-6, ge=0, allow_inf_nan=False)
    warmup_steps: int = Field(default=1500, ge=0)
    warmup_ratio: float = Field(default=1e-6, ge=0, le=1)


def build_optimizer(groups: Sequence[ParameterGroup], settings: OptimizerSettings) -> torch.optim.AdamW:
    """One AdamW group per parameter group; each remembers its `name`, its `base_lr` and its `parameter_names`."""
    return torch.optim.AdamW(
        [
            {
                "params": [parameter for _, parameter in group.parameters],
                "parameter_names": [name for name, _ in group.parameters],
                "name": group.name,
                "lr": settings.lr * group.lr_scale,
                "base_lr": settings.lr * group.lr_scale,
                "weight_decay": settings.weight_decay * group.decay_scale,
            }
            for group in groups or [ParameterGroup("nothing", ())]  # AdamW refuses to have no group
        ],
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )


def learning_rate(base: float, step: int, total: int, settings: OptimizerSettings) -> float:
    """The rate of a group of rate `base` at step `step` of `total`, counted from 0.

    poly: (base - min) (1 - t/T)^power + min; cosine: half a wave from base to min; then the warm-up. `min` holds for
    every group by itself, as in the reference: a group whose base is `min_lr` keeps it. A group below it keeps its own.
    """
    floor = min(settings.min_lr, base)
    progress = step / total
    if settings.schedule == "poly":
        share = math.pow(1 - progress, settings.power)
    else:
        share = (1 + math.cos(math.pi * progress)) / 2
    rate = (base - floor) * share + floor
    if step < settings.warmup_steps:
        rate *= 1 - (1 - step / settings.warmup_steps) * (1 - settings.warmup_ratio)
    return rate


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, total: int, settings: OptimizerSettings) -> None:
    """Sets the rate of every group for step `step` of `total`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["base_lr"], step, total, settings)

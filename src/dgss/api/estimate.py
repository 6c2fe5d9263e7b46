"""What a training will take, before it is begun: measured on one step with made-up pictures; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dgss.api.load import TrainedModel
from dgss.data.domains import domain
from dgss.files import usable_cores
from dgss.interfaces import Batch, Method
from dgss.recipes.schema import Recipe
from dgss.streets.draw import draw_street
from dgss.training.devices import choose_device, cpu_threads, memory_errors, peak_memory
from dgss.training.loop import train_step
from dgss.training.optimizer import build_optimizer
from dgss.training.progress import duration


@dataclass(frozen=True)
class Estimate:
    """trained, total: numbers of parameters. memory_gb: in GB of 10^9 bytes. step_seconds: of one training step.

    drawing_seconds: if all streets are still to be drawn. scoring_seconds: of all drawn domains.
    """

    device: str
    trained: int
    total: int
    memory_gb: float
    step_seconds: float
    training_seconds: float
    drawing_seconds: float
    scoring_seconds: float

    def lines(self) -> list[str]:
        """The estimate in words, and how it was made."""
        return [
            f"parameters: {self.trained / 1e6:.2f} million trained of {self.total / 1e6:.2f} million",
            f"memory: {self.memory_gb:.1f} GB on {self.device}",
            f"time: training {duration(self.training_seconds)} ({self.step_seconds:.2f} s a step), drawing "
            f"{duration(self.drawing_seconds)} unless done before, scoring {duration(self.scoring_seconds)}",
            "measured on this machine as it is now, times the number of steps and images: the second of two steps on "
            "random pictures, one drawn street, one labelled picture; without reading data, and without data sets "
            "that are not drawn",
        ]


def estimate(recipe: Recipe, device: str = "auto") -> Estimate:
    """Builds the model of a recipe, makes two steps on random pictures, draws and labels one street."""
    where, settings = choose_device(device), recipe.training
    advice = f"lower training.batch_size ({settings.batch_size}) or size"
    with cpu_threads(settings.threads), memory_errors(advice):
        method = recipe.build().to(where).train()
        step = _time_step(method, recipe, where) if settings.steps else 0.0
        memory = torch.cuda.max_memory_allocated(where) / 1e9 if where.type == "cuda" else peak_memory()
        model = TrainedModel(method, recipe, where)
        picture = torch.rand(1, 3, *recipe.drawn.size, generator=torch.Generator().manual_seed(recipe.seed))
        label = _seconds(lambda: model.scores(picture), where)
    trained = sum(parameter.numel() for group in method.parameter_groups() for _, parameter in group.parameters)
    drawn = sum(domain(name).drawn is not None for name in {recipe.source, *recipe.targets})
    scored = drawn * recipe.drawn.score_images
    pictures = scored + (recipe.drawn.train_images if settings.steps and domain(recipe.source).drawn else 0)
    street = _seconds(lambda: draw_street(size=recipe.drawn.size), where) if pictures else 0.0
    return Estimate(
        device=str(where),
        trained=trained,
        total=sum(parameter.numel() for parameter in method.parameters()),
        memory_gb=memory,
        step_seconds=step,
        training_seconds=step * settings.steps,
        drawing_seconds=street * pictures / usable_cores(),
        scoring_seconds=label * scored,
    )


def _time_step(method: Method, recipe: Recipe, device: torch.device) -> float:
    """Seconds of the second of two training steps."""
    optimizer = build_optimizer(method.parameter_groups(), recipe.training.optimizer)
    numbers = iter(range(2))

    def step() -> None:
        number = next(numbers)
        batch = _random_batch(method, recipe, number).to(device)
        train_step(method, batch, optimizer, recipe.training, recipe.seed, number)

    return _seconds(step, device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second of two runs of `work`, until `device` has done it."""

    def done_at() -> float:
        work()
        if device.type == "cuda":  # it works on after the call has come back
            torch.cuda.synchronize(device)
        return time.monotonic()

    begin = done_at()
    return done_at() - begin


def _random_batch(method: Method, recipe: Recipe, number: int) -> Batch:
    """Random pictures with random labels in blocks: as many classes as an image can hold, so rather too slow."""
    generator = torch.Generator().manual_seed(recipe.seed)
    count, (height, width) = recipe.training.batch_size, recipe.size
    blocks = torch.randint(len(method.labels), (count, 1, -(-height // 16), -(-width // 16)), generator=generator)
    labels = blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, 0, :height, :width]
    return Batch(
        images=torch.rand(count, 3, height, width, generator=generator),
        labels=labels.contiguous(),
        valid=torch.ones(count, height, width, dtype=torch.bool),
        numbers=torch.arange(number * count, (number + 1) * count),
    )

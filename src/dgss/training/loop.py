"""The training loop: batch, one forward, losses, their sum, backward, clipping, one step of AdamW.

What is drawn in a step depends on (seed, step) or (seed, sample number) alone, so a stopped training that goes on
from its checkpoint equals one that never stopped, on a CPU to the bit. Sums differ in their last bits with the number
of threads, so a resumed training uses as many as before.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field

from dgss.errors import DgssError
from dgss.files import RunFolder
from dgss.interfaces import Batch, Method, SampleGenerator
from dgss.training.checkpoint import Position, restore_checkpoint, save_checkpoint
from dgss.training.devices import cpu_threads, memory_errors, random_of_step
from dgss.training.loggers import MetricsFile
from dgss.training.optimizer import OptimizerSettings, build_optimizer, set_learning_rates
from dgss.training.progress import Progress


class LoopSettings(BaseModel):
    """How long and how a model is trained.

    workers: processes that prepare batches ahead; 0 prepares them in between. clip_norm: the largest norm of all
    gradients together, None no limit. precision: of the forward pass; weights stay float32. checkpoint_every,
    log_every: in steps; the last step is always saved and logged. threads: of the CPU, None all cores, and on going on
    as many as before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=20_000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    workers: int = Field(default=0, ge=0)
    optimizer: OptimizerSettings = OptimizerSettings()
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=10, ge=1)
    threads: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    step: counted from 1, of `steps`. terms: the weighted losses by name. loss: their sum. gradient_norm: before
    clipping, None where nothing is clipped. learning_rate: the largest of all groups. seconds: without the batch's
    preparation.
    """

    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    gradient_norm: float | None
    learning_rate: float
    seconds: float


class Stopped(KeyboardInterrupt):
    """A training that was asked to stop (Ctrl-C, SIGTERM) and has saved its state; the text says how to go on."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class BatchSource(Protocol):
    """What the loop needs of a loader."""

    batch_size: int

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps start, ..., stop - 1."""


def fit(
    method: Method,
    loader: BatchSource,
    settings: LoopSettings,
    folder: RunFolder,
    seed: int,
    device: torch.device,
    progress: Progress,
    on_step: Callable[[StepReport], None] | None = None,
) -> Position:
    """Trains `method` until `settings.steps`, from the newest checkpoint in `folder` if there is one.

    Writes checkpoints and metrics.jsonl. Raises `Stopped` after Ctrl-C or SIGTERM, `DgssError` where a loss
    is no number any more.
    """
    method.to(device).train()
    optimizer = build_optimizer(method.parameter_groups(), settings.optimizer)
    metrics = MetricsFile(folder.metrics)
    position = restore_checkpoint(folder.checkpoints, method, optimizer, progress.warn)
    metrics.keep_until(position.step)
    begin = time.monotonic() - position.seconds
    advice = f"lower training.batch_size ({settings.batch_size}) or the crop size"
    threads = _threads(settings, position, progress)
    with cpu_threads(threads), StopRequest() as stop, progress.bar("training") as advance:
        for batch in loader.batches(position.step, settings.steps):
            with memory_errors(advice):
                report = train_step(method, batch.to(device), optimizer, settings, seed, position.step)
            seconds = time.monotonic() - begin
            rate = loader.batch_size / max(seconds - position.seconds, 1e-9)
            position = Position(report.step, seconds, torch.get_num_threads())
            last = report.step == settings.steps
            if last or report.step % settings.log_every == 0:
                metrics.write(_row(report, seconds, rate))
            advance(report.step, settings.steps, f"loss {report.loss:.2f}, {rate:.1f} images/s")
            asked = stop.number  # read once: a signal may come between the two places that need it
            if last or asked or report.step % settings.checkpoint_every == 0:
                save_checkpoint(folder.checkpoints, position, method, optimizer)
            if on_step is not None:
                on_step(report)
            if asked:
                place = f"stopped at step {report.step} of {report.steps}, all is saved"
                raise Stopped(f"{place}; {how_to_go_on(folder)}", asked)
    return position


def train_step(
    method: Method,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    settings: LoopSettings,
    seed: int,
    step: int,
) -> StepReport:
    """One step, number `step` counted from 0, on a batch that lies on the method's device."""
    begin = time.monotonic()
    device = batch.images.device
    set_learning_rates(optimizer, step, settings.steps, settings.optimizer)
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    with random_of_step(seed, step, device), bfloat16:
        prediction = method(batch.images, batch.valid)
        losses = method.losses(prediction, batch, SampleGenerator(seed, batch.numbers))
    total = torch.stack([loss.float() for loss in losses.values()]).sum()
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    _check_finite(values, step)
    optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    norm = None
    if settings.clip_norm is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm))
    optimizer.step()
    return StepReport(
        step=step + 1,
        steps=settings.steps,
        loss=float(total.detach()),
        terms=values,
        gradient_norm=norm,
        learning_rate=max(group["lr"] for group in optimizer.param_groups),
        seconds=time.monotonic() - begin,
    )


class StopRequest:
    """Notes SIGINT (Ctrl-C) and SIGTERM inside its block instead of dying of them; a second one ends at once.

    `number` is the signal's, None while nothing was asked. Outside the main thread signals keep their meaning.
    """

    number: int | None = None

    def __enter__(self) -> Self:
        self._process, self._before = os.getpid(), {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker process inherits the handler by fork; it ends when its parent does
        if self.number is not None:
            raise KeyboardInterrupt("stopped at once; the last checkpoint stays")
        self.number = number


def _threads(settings: LoopSettings, position: Position, progress: Progress) -> int | None:
    """How many threads to use: as set, else as before, else torch's own choice (None)."""
    cores = os.cpu_count() or 1
    if settings.threads is None and position.threads is not None and position.threads > cores:
        progress.warn(f"going on with {position.threads} threads as before, for equal results, on {cores} cores: slow")
    return settings.threads or position.threads


def _check_finite(values: dict[str, float], step: int) -> None:
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise DgssError(
            f"step {step + 1}: the loss is no number any more ({', '.join(bad)}); lower training.optimizer.lr, "
            f"set training.clip_norm or take training.precision=float32"
        )


def _row(report: StepReport, seconds: float, rate: float) -> dict[str, Any]:
    row: dict[str, Any] = {"step": report.step, "loss": report.loss, "terms": report.terms}
    if report.gradient_norm is not None:
        row["gradient_norm"] = report.gradient_norm
    return row | {
        "learning_rate": report.learning_rate,
        "images_per_second": round(rate, 3),
        "seconds": round(seconds, 3),
    }


def how_to_go_on(folder: RunFolder) -> str:
    """The command that takes up a stopped run, as a person types it."""
    path = str(folder.path)
    quoted = subprocess.list2cmdline([path]) if sys.platform == "win32" else shlex.quote(path)
    return f"go on with: dgss train --resume --out {quoted}"

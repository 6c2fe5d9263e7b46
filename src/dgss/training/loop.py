"""The training loop: batch, one forward, losses, their sum, backward, clipping, one step of AdamW.

What is drawn in a step depends on (seed, step) or (seed, sample number) alone, so a stopped training that goes on
from its checkpoint equals one that never stopped, on a CPU to the bit. Sums differ in their last bits with the number
of threads, so a resumed training uses as many as before.
"""

from __future__ import annotations

import math
import os
import signal
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
from dgss.training.devices import cpu_threads, memory_kept, random_of_step
from dgss.training.loggers import MetricsFile
from dgss.training.optimizer import OptimizerSettings, build_optimizer, set_learning_rates
from dgss.training.progress import Progress

_ADVICE = "lower training.optimizer.lr, set training.clip_norm or take training.precision=float32"


class LoopSettings(BaseModel):
    """How long and how a model is trained.

    steps: 0 leaves the model as it is built. workers: processes that prepare batches ahead; 0 prepares them in between.
    clip_norm: the largest norm of all gradients together, None no limit. precision: of the forward pass; weights stay
    float32. checkpoint_every, log_every: in steps; the last step is always saved and logged. threads: of the CPU, None
    all cores, and on going on as many as before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=20_000, ge=0, le=100_000_000)
    batch_size: int = Field(default=8, ge=1, le=4096)
    workers: int = Field(default=0, ge=0, le=1024)
    optimizer: OptimizerSettings = OptimizerSettings()
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=10, ge=1)
    threads: int | None = Field(default=None, ge=1, le=1024)


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
    """A run that was asked to stop (Ctrl-C, SIGTERM); the text says how to go on."""

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
    metrics = MetricsFile(folder.metrics, progress.warn)
    position = restore_checkpoint(folder.checkpoints, method, optimizer, progress.warn)
    metrics.keep_until(position.step)
    begin = time.monotonic() - position.seconds
    threads = _threads(settings, position, progress)
    with cpu_threads(threads), memory_kept(), StopRequest(folder) as stop, progress.bar("training") as advance:
        for batch in loader.batches(position.step, settings.steps):
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
                _check_weights(method, report.step)
                save_checkpoint(folder.checkpoints, position, method, optimizer)
            if on_step is not None:
                on_step(report)
            if asked:
                place = f"stopped at step {report.step} of {report.steps}, all is saved"
                raise Stopped(f"{place}; {folder.how_to_go_on()}", asked)
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
    """SIGINT (Ctrl-C) and SIGTERM inside its block end in `Stopped`, which says how to go on.

    at_once: raised where the program stands. Else the first is only noted in `number`, for the block to answer when its
    step is done and saved, and the second is raised. Outside the main thread signals keep their meaning.
    """

    number: int | None = None

    def __init__(self, folder: RunFolder, at_once: bool = False) -> None:
        self._folder = folder
        self._at_once = at_once

    def __enter__(self) -> Self:
        self._process, self._before = os.getpid(), {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._answer)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # it came when the block had looked for the last time, or it ended the processes that prepare batches as well
        if self.number is not None and (kind is None or issubclass(kind, RuntimeError)):
            raise self._stopped(self.number)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker process inherits the handler by fork; it ends when its parent does
        if self._at_once or self.number is not None:
            raise self._stopped(number)
        self.number = number

    def _stopped(self, number: int) -> Stopped:
        return Stopped(f"stopped; {self._folder.how_to_go_on()}", number)


def _threads(settings: LoopSettings, position: Position, progress: Progress) -> int | None:
    """How many threads to use: as set, else as before, else torch's own choice (None)."""
    cores = os.cpu_count() or 1
    if settings.threads is None and position.threads is not None and position.threads > cores:
        progress.warn(f"going on with {position.threads} threads as before, for equal results, on {cores} cores: slow")
    return settings.threads or position.threads


def _check_finite(values: dict[str, float], step: int) -> None:
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise DgssError(f"step {step + 1}: the loss is no number any more ({', '.join(bad)}); {_ADVICE}")


def _check_weights(method: Method, step: int) -> None:
    """A gradient that is no number shows in the next step's loss; until then what it did must not be saved."""
    bad = next((name for name, value in method.state_dict().items() if not value.isfinite().all()), None)
    if bad:
        raise DgssError(f"step {step}: {bad} holds what is no number any more; {_ADVICE}; nothing of it is saved")


def _row(report: StepReport, seconds: float, rate: float) -> dict[str, Any]:
    row: dict[str, Any] = {"step": report.step, "loss": report.loss, "terms": report.terms}
    if report.gradient_norm is not None:
        row["gradient_norm"] = report.gradient_norm
    return row | {
        "learning_rate": report.learning_rate,
        "images_per_second": round(rate, 3),
        "seconds": round(seconds, 3),
    }

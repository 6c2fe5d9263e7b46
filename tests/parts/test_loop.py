"""The training loop: resuming, repeating, stopping, and that each of its settings matters."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dgss import files
from dgss.api import estimate as estimating
from dgss.errors import DeviceError, DgssError
from dgss.files import RunFolder
from dgss.interfaces import Batch, Method, SampleGenerator
from dgss.labels import label_space
from dgss.methods.tqdm import TqdmSettings
from dgss.recipes.schema import Recipe
from dgss.training import devices, loop, progress
from dgss.training.checkpoint import Position
from dgss.training.devices import choose_device, memory_errors, peak_memory, random_of_step
from dgss.training.loggers import MetricsFile
from dgss.training.loop import LoopSettings, StepReport, Stopped, StopRequest, fit
from dgss.training.optimizer import OptimizerSettings, learning_rate
from dgss.training.progress import Progress, duration
from tests.parts.test_optimizer import TABLE
from tests.parts.tiny import tiny_batch, tiny_towers

CPU = torch.device("cpu")
OPTIMIZER = OptimizerSettings(lr=1e-3, warmup_steps=2, schedule="cosine")
SETTINGS = LoopSettings(steps=5, batch_size=2, optimizer=OPTIMIZER, checkpoint_every=2, log_every=1, threads=1)


class Batches:
    """A batch for every step."""

    batch_size = 2

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            batch = tiny_batch(seed=step, size=(32, 32))
            yield Batch(batch.images, batch.labels, batch.valid, torch.arange(2 * step, 2 * step + 2))


def build(seed: int = 0) -> Method:
    """A true method with dropout in it, on stand-in towers."""
    settings = TqdmSettings.model_validate(
        {
            "width": 16,
            "heads": 2,
            "norm_groups": 4,
            "pixel_layers": 1,
            "decoder_layers": 1,
            "pixel_ffn": 16,
            "decoder_ffn": 16,
            "contexts": 1,
            "context_decoder": {"width": 8, "heads": 2, "layers": 1, "dropout": 0.5, "gamma": 1.0},
            "mask_losses": {"points": 20},
        }
    )
    return settings.build(tiny_towers(), label_space("cityscapes19"), torch.Generator().manual_seed(seed))


def run(
    folder: Path,
    settings: LoopSettings = SETTINGS,
    seed: int = 0,
    on_step: Callable[[StepReport], None] | None = None,
) -> Method:
    method = build()
    fit(method, Batches(), settings, RunFolder(folder), seed, CPU, Progress(quiet=True), on_step)
    return method


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def without_times(folder: Path) -> list[dict[str, object]]:
    rows = MetricsFile(folder / "metrics.jsonl", never).rows()
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in rows]


def never(text: str) -> None:
    raise AssertionError(text)


class Crash(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_resumed_training_equals_one_never_stopped_to_the_bit(stop: int, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")

    def crash(report: StepReport) -> None:
        if report.step == stop:
            raise Crash

    with pytest.raises(Crash):
        run(tmp_path / "parts", on_step=crash)
    steps: list[int] = []
    torch.rand(7)  # the state of torch's global generator must not matter
    resumed = run(tmp_path / "parts", on_step=lambda report: steps.append(report.step))
    assert steps == list(range(stop // 2 * 2 + 1 if stop < 5 else 6, 6))  # from the last checkpoint, every second step
    assert equal(whole, resumed)
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "parts")


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    one, other = run(tmp_path / "one"), run(tmp_path / "other")
    assert equal(one, other)
    assert not equal(one, run(tmp_path / "seed", seed=1))


def test_training_does_not_touch_the_global_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_what_a_step_draws_depends_on_seed_and_step_alone() -> None:
    def draw(seed: int, step: int) -> Tensor:
        with random_of_step(seed, step, CPU):
            return torch.rand(4)

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert len({tuple(draw(seed, step).tolist()) for seed in range(3) for step in range(3)}) == 9


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the random states of other devices, on a stand-in for each."""
    done: list[str] = []
    for kind in ("cuda", "mps"):
        module = getattr(torch, kind)
        monkeypatch.setattr(module, "manual_seed", lambda seed, kind=kind: done.append(f"{kind} seeded"))
        monkeypatch.setattr(module, "get_rng_state", lambda *_: torch.zeros(1))
        monkeypatch.setattr(module, "set_rng_state", lambda state, *_, kind=kind: done.append(f"{kind} put back"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: done.append("every cuda seeded"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(done.append(f"on {device}")))
    return done


def test_what_is_drawn_on_one_device_touches_no_other(seeded: list[str]) -> None:
    """Broken by `torch.manual_seed`, which seeds every device there is."""
    before = torch.get_rng_state()
    with random_of_step(0, 0, CPU):
        torch.rand(3)
    with Method.drawn_from(torch.Generator()):
        torch.rand(3)
    assert seeded == []
    for name, expected in (
        ("cuda:1", ["on cuda:1", "cuda seeded", "cuda put back"]),
        ("mps", ["mps seeded", "mps put back"]),
    ):
        with pytest.raises(Crash), random_of_step(0, 0, torch.device(name)):
            assert seeded == expected[:-1]
            raise Crash
        assert seeded == expected
        seeded.clear()
    assert torch.equal(before, torch.get_rng_state())


def test_learning_rate_zero_changes_no_parameter(tmp_path: Path) -> None:
    before = dict(build().named_parameters())
    after = dict(run(tmp_path, SETTINGS.model_copy(update={"optimizer": OptimizerSettings(lr=0.0)})).named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    run(tmp_path, on_step=reports.append)
    rates = [learning_rate(OPTIMIZER.lr, step, SETTINGS.steps, OPTIMIZER) for step in range(5)]
    assert [report.learning_rate for report in reports] == pytest.approx(rates)
    assert [row["learning_rate"] for row in without_times(tmp_path)] == pytest.approx(rates)


HEAD_AND_TOWER = {"tqdm-clip-b-gta5": (0, 1), "tqdm-eva02-l-gta5": (0, 1), "tqdm-eva02-l-cityscapes": (2, 0)}
"""Released recipe -> the columns of the schedule's table with the rates of its two kinds of groups."""


@pytest.mark.parametrize("name", HEAD_AND_TOWER)
def test_the_released_rates_are_those_that_each_step_is_made_with(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken by setting them after the step, by counting from 1, by another number of steps, power or floor."""
    settings = Recipe.load(name).training.model_copy(update={"threads": 1})
    head, tower = HEAD_AND_TOWER[name]
    used: list[dict[str, float]] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: used.append({group["name"]: group["lr"] for group in optimizer.param_groups})
    )

    def stop(report: StepReport) -> None:
        assert report.gradient_norm is None  # nothing is clipped
        raise Crash

    try:
        for step in TABLE:
            monkeypatch.setattr(loop, "restore_checkpoint", lambda *_, step=step: Position(step, 0.0, 1))
            with pytest.raises(Crash):
                run(tmp_path / str(step), settings, on_step=stop)
    finally:
        hook.remove()
    for rates, found in zip(TABLE.values(), used, strict=True):
        wanted = dict.fromkeys(("head", "norm", "embedding"), rates[head]) | {"tower": rates[tower]}
        assert found == pytest.approx(wanted, rel=5e-7)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "with space"

    def interrupt(report: StepReport) -> None:
        if report.step == 3:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run(folder, on_step=interrupt)
    assert signal.getsignal(number) is handler
    assert stopped.value.exit_code == 128 + number
    assert f"stopped at step 4 of 5, all is saved; go on with: dgss train --resume --out '{folder}'" in str(
        stopped.value
    )
    steps: list[int] = []
    resumed = run(folder, on_step=lambda report: steps.append(report.step))
    assert steps == [5]
    assert equal(resumed, run(tmp_path / "whole"))


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_second_signal_while_the_first_is_saving_ends_at_once_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_: send(signal.SIGTERM))
    with pytest.raises(Stopped, match=r"^stopped; go on with: dgss train --resume") as stopped:
        run(tmp_path, on_step=lambda _: send(signal.SIGINT))
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_after_the_last_step_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(Stopped) as stopped:
        run(tmp_path, on_step=lambda report: send(signal.SIGINT) if report.step == report.steps else None)
    assert stopped.value.exit_code == 130
    assert (tmp_path / "checkpoints" / "000005.json").exists()


def test_a_signal_that_also_ends_the_processes_that_prepare_batches_is_told_as_a_stop(tmp_path: Path) -> None:
    with pytest.raises(Stopped), StopRequest(RunFolder(tmp_path)):
        send(signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_outside_the_steps_a_signal_stops_at_once(number: signal.Signals, tmp_path: Path) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match="go on with") as stopped, StopRequest(RunFolder(tmp_path), at_once=True):
        send(number)
        pytest.fail("went on")
    assert stopped.value.exit_code == 128 + number and signal.getsignal(number) is handler


class Explodes(nn.Module):
    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def __call__(self, *arguments: object) -> object:
        return self.method(*arguments)

    def losses(self, prediction: object, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        zero = sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad) * 0
        return {"fine": zero + 1, "broken": zero + float("nan"), "large": zero + float("inf")}

    def parameter_groups(self) -> object:
        return self.method.parameter_groups()


def test_a_loss_that_is_no_number_stops_and_is_named(tmp_path: Path) -> None:
    method: Method = Explodes(build())  # type: ignore[assignment]
    with pytest.raises(DgssError, match=r"step 1: .*\(broken = nan, large = inf\); lower training\.optimizer\.lr"):
        fit(method, Batches(), SETTINGS, RunFolder(tmp_path), 0, CPU, Progress(quiet=True))
    assert not list(tmp_path.rglob("*.safetensors"))


class Undefined(Explodes):
    """The loss is a number, its gradient is none."""

    def losses(self, prediction: object, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        return {
            "root": sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad).mul(0).sqrt()
        }


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    method: Method = Undefined(build())  # type: ignore[assignment]
    settings = SETTINGS.model_copy(update={"steps": 1})
    with pytest.raises(DgssError, match=r"step 1: method\..* holds what is no number any more; lower training\."):
        fit(method, Batches(), settings, RunFolder(tmp_path), 0, CPU, Progress(quiet=True))
    assert not list(tmp_path.rglob("*.safetensors"))


CHANGES: dict[str, object] = {
    "steps": 4,
    "optimizer": OptimizerSettings(lr=5e-3),
    "clip_norm": 1e-3,
    "precision": "bfloat16",
}
SEEN_ELSEWHERE = {"batch_size", "workers", "checkpoint_every", "log_every", "threads"}  # below, and with the loader


def test_every_setting_is_tried() -> None:
    assert CHANGES.keys() | SEEN_ELSEWHERE == LoopSettings.model_fields.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_training(name: str, tmp_path: Path) -> None:
    changed = run(tmp_path / "changed", SETTINGS.model_copy(update={name: CHANGES[name]}))
    assert not equal(run(tmp_path / "base"), changed)


def test_checkpoints_and_rows_come_as_often_as_asked_and_at_the_end(tmp_path: Path) -> None:
    run(tmp_path, SETTINGS.model_copy(update={"checkpoint_every": 3, "log_every": 2}))
    assert [row["step"] for row in MetricsFile(tmp_path / "metrics.jsonl", never).rows()] == [2, 4, 5]
    assert sorted(path.stem for path in (tmp_path / "checkpoints").glob("*.json")) == ["000003", "000005"]
    row = MetricsFile(tmp_path / "metrics.jsonl", never).rows()[-1]
    assert row["loss"] == pytest.approx(sum(row["terms"].values()), rel=1e-5)


def test_threads_hold_inside_the_training_alone(tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []
    wanted = 3 if before != 3 else 2
    changed = SETTINGS.model_copy(update={"threads": wanted, "steps": 1})
    run(tmp_path, changed, on_step=lambda _: seen.append(torch.get_num_threads()))
    assert seen == [wanted] and torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["cuda:9", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DeviceError, match=name):
        choose_device(name)


def test_lack_of_memory_says_what_to_lower() -> None:
    with pytest.raises(DeviceError, match="lower it"), memory_errors("lower it"):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="size of tensor"), memory_errors("lower it"):
        torch.zeros(3) + torch.zeros(4)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "^out of memory: lower it$"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Tried to allocate 2 GiB"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "MPS backend"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "DataLoader worker"),
    ],
)
def test_lack_of_memory_is_known_by_each_of_its_names(error: Exception, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason), memory_errors("lower it"):
        raise error


def test_lack_of_memory_in_opencv_is_known_and_its_other_errors_are_not() -> None:
    lacking = cv2.error("Insufficient memory")
    lacking.code = cv2.Error.StsNoMem
    with pytest.raises(DeviceError, match="lower it"), memory_errors("lower it"):
        raise lacking
    with pytest.raises(cv2.error), memory_errors("lower it"):
        cv2.imdecode(torch.zeros(0, dtype=torch.uint8).numpy(), -1)


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory()
    held = torch.ones(2**27)  # 0.54 GB
    assert 0.05 < before < 64
    assert peak_memory() > before or before > 1.5
    del held


def test_durations_read_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3599.9, 3720)] == [
        "0 s",
        "59 s",
        "1:01 min",
        "1:00 h",
        "1:02 h",
    ]


def test_a_resumed_training_uses_as_many_threads_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def go_on(threads: int | None, steps: int) -> None:
        settings = SETTINGS.model_copy(update={"threads": threads, "steps": steps})
        run(tmp_path, settings, on_step=lambda _: seen.append(torch.get_num_threads()))

    other = torch.get_num_threads() + 1
    go_on(other, 1)
    monkeypatch.setattr(os, "cpu_count", lambda: other - 1)
    go_on(None, 2)
    assert f"warning: going on with {other} threads" in capsys.readouterr().err
    go_on(1, 3)
    assert seen == [other, other, 1] and not capsys.readouterr().err


def test_time_is_read_when_the_device_has_done_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken by reading the clock while a CUDA device still works."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(f"waited for {device}"))
    monkeypatch.setattr(estimating, "time", SimpleNamespace(monotonic=lambda: float(len(done))))
    for device, wait in (("cuda:1", ["waited for cuda:1"]), ("cpu", [])):
        seconds = estimating._seconds(lambda: done.append("work"), torch.device(device))
        assert done == ["work", *wait] * 2 and seconds == len(done) / 2
        done.clear()


def test_a_step_and_a_sample_of_one_number_draw_different_numbers() -> None:
    with random_of_step(1, 2, CPU):
        drawn = torch.rand(4)
    assert not torch.equal(drawn, SampleGenerator(1, [2]).uniform(0, (4,)))


def test_peak_memory_is_known_where_the_system_does_not_state_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("Name: x\nVmRSS: 1 kB\n", encoding="ascii")
    monkeypatch.setattr(devices, "_STATUS", tmp_path / "status")
    assert 0.05 < peak_memory() < 64


def test_the_way_to_go_on_is_quoted_for_the_shell_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(Path("a run"))
    assert folder.how_to_go_on().endswith("--out 'a run'")
    monkeypatch.setattr(files.sys, "platform", "win32")
    assert folder.how_to_go_on().endswith('--out "a run"')


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(stream: io.StringIO, work: Callable[[Callable[[int, int, str], None]], None]) -> list[str]:
    """What stands on the stream when a bar for some work has ended, without what the bar itself was."""
    with Progress(stream).bar("drawing") as advance:
        work(advance)
    return [line for line in stream.getvalue().split("\x1b[2K")[-1].splitlines() if "drawing" in line]


def work(advance: Callable[[int, int, str], None]) -> None:
    advance(1, 2, "")
    advance(2, 2, "well")


def test_on_a_terminal_a_short_work_leaves_no_line_and_a_long_one_leaves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert lines_of(Terminal(), work) == []
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    assert lines_of(Terminal(), work) == ["drawing 2/2, took 0 s, well"]


def test_elsewhere_every_work_leaves_a_line_and_one_that_did_nothing_none() -> None:
    assert lines_of(io.StringIO(), work) == ["drawing 2/2, took 0 s, well"]
    assert lines_of(io.StringIO(), lambda _: None) == []

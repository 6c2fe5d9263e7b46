"""Checkpoints: nothing is lost, nothing half-written counts, a damaged one gives way to the one before it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from dgss import files
from dgss.errors import DgssError, WeightsError
from dgss.interfaces import ParameterGroup
from dgss.training import checkpoint
from dgss.training.checkpoint import Position, restore_checkpoint, save_checkpoint
from dgss.training.loggers import MetricsFile
from dgss.training.optimizer import OptimizerSettings, build_optimizer
from dgss.weights import store
from dgss.weights.store import load_strictly, read_weights, save_weights


class Model(nn.Module):
    def __init__(self, seed: int = 0, width: int = 3) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, width, generator=draw))
        self.unused = nn.Parameter(torch.randn(2, generator=draw))
        self.register_buffer("count", torch.tensor(3, dtype=torch.int64))
        self.register_buffer("table", torch.arange(6, dtype=torch.int8).view(2, 3).T)  # not contiguous
        self.same = self.weight  # shares memory under two names


def build(seed: int = 0, width: int = 3) -> tuple[Model, torch.optim.AdamW]:
    model = Model(seed, width)
    groups = [ParameterGroup("a", (("weight", model.weight),)), ParameterGroup("b", (("unused", model.unused),))]
    return model, build_optimizer(groups, OptimizerSettings(lr=0.1))


def train(model: Model, optimizer: torch.optim.AdamW, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (model.weight**2).sum().backward()  # `unused` never gets a state
        optimizer.step()
        model.count += 1


def states(model: Model, optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    inner = [state[key] for state in optimizer.state_dict()["state"].values() for key in sorted(state)]
    return [*model.state_dict().values(), *inner]


def never(text: str) -> None:
    raise AssertionError(text)


def test_saved_and_restored_are_equal_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = build()
    train(model, optimizer, 3)
    save_checkpoint(tmp_path, Position(3, 1.5), model, optimizer)
    other, other_optimizer = build(seed=1)
    assert restore_checkpoint(tmp_path, other, other_optimizer, never) == Position(3, 1.5)
    assert all(map(torch.equal, states(model, optimizer), states(other, other_optimizer)))
    train(model, optimizer, 2)
    train(other, other_optimizer, 2)
    assert all(map(torch.equal, states(model, optimizer), states(other, other_optimizer)))


def test_without_a_checkpoint_a_training_begins_at_its_start(tmp_path: Path) -> None:
    assert restore_checkpoint(tmp_path / "none", *build(), never) == Position(0, 0.0)


def test_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    model, optimizer = build()
    for step in (98, 99, 100, 101):
        train(model, optimizer, 1)
        save_checkpoint(tmp_path, Position(step), model, optimizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{step:06}.{kind}" for step in (100, 101) for kind in ("json", "safetensors")
    ]
    assert restore_checkpoint(tmp_path, *build(), never).step == 101


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip_a_bit,
    "a cut file": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "an empty file": lambda path: path.write_bytes(b""),
    "no file": Path.unlink,
    "a cut JSON": lambda path: path.with_suffix(".json").write_text('{"step": 2, "sec', encoding="utf-8"),
    "a JSON of something else": lambda path: path.with_suffix(".json").write_text("[1]", encoding="utf-8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(damage: str, tmp_path: Path) -> None:
    model, optimizer = build()
    train(model, optimizer, 1)
    save_checkpoint(tmp_path, Position(1), model, optimizer)
    first = [value.clone() for value in states(model, optimizer)]
    train(model, optimizer, 1)
    save_checkpoint(tmp_path, Position(2), model, optimizer)
    DAMAGES[damage](tmp_path / "000002.safetensors")
    warnings: list[str] = []
    other, other_optimizer = build(seed=1)
    assert restore_checkpoint(tmp_path, other, other_optimizer, warnings.append).step == 1
    assert all(map(torch.equal, first, states(other, other_optimizer)))
    assert len(warnings) == 1 and "000002" in warnings[0]
    flip_a_bit(tmp_path / "000001.safetensors")
    with pytest.raises(WeightsError, match="no checkpoint"):
        restore_checkpoint(tmp_path, *build(), warnings.append)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Position(1), *build(width=5))
    with pytest.raises(WeightsError, match="another model"):
        restore_checkpoint(tmp_path, *build(), lambda _: None)


@pytest.mark.parametrize("at", range(4))
def test_killed_at_any_write_the_old_or_the_new_counts(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = build()
    train(model, optimizer, 1)
    save_checkpoint(tmp_path, Position(1), model, optimizer)
    train(model, optimizer, 1)
    writes = iter(range(100))

    class Killed(BaseException):
        pass

    def dying(original: Callable[..., object]) -> Callable[..., object]:
        def act(*arguments: object) -> object:
            if next(writes) == at:
                raise Killed
            return original(*arguments)

        return act

    monkeypatch.setattr(files, "_flush", dying(files._flush))  # before each of the two files takes its place
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    with pytest.raises(Killed):
        save_checkpoint(tmp_path, Position(2), model, optimizer)
    monkeypatch.undo()
    assert restore_checkpoint(tmp_path, *build(), never).step == 1
    save_checkpoint(tmp_path, Position(2), model, optimizer)
    assert restore_checkpoint(tmp_path, *build(), never).step == 2


def test_metrics_after_the_restored_step_are_dropped_and_cut_lines_too(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", never)
    assert metrics.rows() == []
    for step in (1, 2, 3):
        metrics.write({"step": step, "seconds": step / 3})
    with metrics.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    metrics.keep_until(2)
    assert metrics.rows() == [{"step": 1, "seconds": 1 / 3}, {"step": 2, "seconds": 2 / 3}]
    metrics.write({"step": 3, "seconds": 0.5})
    assert [json.loads(line)["step"] for line in metrics.path.read_text(encoding="utf-8").splitlines()] == [1, 2, 3]


def test_damaged_lines_of_metrics_are_counted(tmp_path: Path) -> None:
    told: list[str] = []
    metrics = MetricsFile(tmp_path / "metrics.jsonl", told.append)
    whole = '{"step": 1, "seconds": 0.5}'
    metrics.path.write_text(f'{whole}\n{whole[:9]}\n[1]\n{{"step": 2}}\n{whole}\n{{"ste', encoding="utf-8")
    assert len(metrics.rows()) == 2
    assert told == [f"3 of 6 lines of {metrics.path} are damaged and left out"]


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    """Broken by several entries of metadata: safetensors draws their order anew for every file."""
    for number in range(8):
        save_weights(tmp_path / str(number), Model().state_dict(), "name: x\n", step=7)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    for description in (None, {"dgss": "[1]"}, {"dgss": "x"}, {"format": "pt"}):
        save_file({"a": torch.ones(2)}, tmp_path / "x", description)
        with pytest.raises(WeightsError, match="not written by this version of dgss"):
            read_weights(tmp_path / "x")


def test_weights_are_stored_with_their_recipe_and_read_back_equal(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", Model()
    save_weights(path, model.state_dict(), "name: x\n", step=7)
    stored = read_weights(path)
    assert (stored.recipe, stored.step) == ("name: x\n", 7)
    other = Model(seed=1)
    load_strictly(other, stored.tensors, "x")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("damage", ["a flipped bit", "a cut file", "an empty file", "no file"])
def test_damaged_weights_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, Model().state_dict(), "name: x\n", step=7)
    DAMAGES[damage](path)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        read_weights(path)


def test_weights_that_do_not_fit_are_named() -> None:
    tensors = Model().state_dict()
    tensors["extra"] = tensors.pop("unused")
    tensors["weight"] = torch.zeros(9)
    with pytest.raises(WeightsError) as error:
        load_strictly(Model(), tensors, "file")
    for expected in ("1 missing (unused)", "1 unexpected (extra)", "weight is (9,), not (4, 3)"):
        assert expected in str(error.value)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x", encoding="utf-8")
    with pytest.raises(DgssError, match="cannot write"):
        save_checkpoint(blocked / "checkpoints", Position(1), *build())


def test_steps_are_counted_as_numbers_not_as_text(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 1_000_001):
        save_checkpoint(tmp_path, Position(step, threads=3), *build())
    assert {path.stem for path in tmp_path.iterdir()} == {"1000000", "1000001"}
    assert restore_checkpoint(tmp_path, *build(), never) == Position(1_000_001, threads=3)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "; free some space or name another place"),
        (errno.EDQUOT, "; free some space or name another place"),
        (errno.EACCES, "Permission denied; name another place"),
    ],
)
def test_the_advice_fits_the_reason(number: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "some space.part")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    for write in (
        lambda: files.write_text(tmp_path / "x", "text"),
        lambda: MetricsFile(tmp_path / "x", never).write({"step": 1}),
    ):
        with pytest.raises(DgssError, match=f"{advice}$"):
            write()


@pytest.mark.parametrize("module", [checkpoint, store])
def test_a_full_disk_is_one_line(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DgssError, match=r"cannot write .*: I/O error: No space left .*; free some space"):
        if module is checkpoint:
            save_checkpoint(tmp_path, Position(1), *build())
        else:
            save_weights(tmp_path / "x", Model().state_dict(), "name: x\n", step=7)
    assert not list(tmp_path.iterdir())

"""The scripts that made the mini model: its image tower on a few tiny scenes, its text tower on a few words."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dgss.towers.mini import MiniImageTower
from dgss.towers.shipped import MiniSettings, shipped_table


@pytest.fixture
def making(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("make_image_tower")


@pytest.fixture
def distilling(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("make_text_student")


@pytest.fixture
def tower() -> MiniImageTower:
    tower = MiniSettings(weights="none", frozen_norm=False).build(weights=False).image
    assert isinstance(tower, MiniImageTower)
    return tower


@pytest.fixture
def sentences() -> list[Tensor]:
    return [normalize(torch.eye(19, 384)[k : k + 1] + 0.1) for k in range(19)]


def tiny_plan(making: ModuleType, **values: Any) -> Any:
    return making.Plan(**{"rand": 1, "game": 1, "steps": 1, "seed": 0, "batch": 2, "height": 32, "width": 64, **values})


def tiny_scenes(making: ModuleType) -> Any:
    random = np.random.default_rng(0)
    return making.Scenes(
        random.integers(0, 256, (2, 48, 96, 3), np.uint8), random.integers(0, 19, (2, 48, 96), np.uint8)
    )


def save_at_every_step(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """A minute goes by at every look at the clock."""
    clock = SimpleNamespace(monotonic=count(0, 61).__next__, process_time=time.process_time)
    monkeypatch.setattr(module, "time", clock)


def stop_at(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, call: int) -> None:
    """Ctrl-C at the call of this number, counted from 0; after that the function is as it was."""
    calls, whole = count(), getattr(module, name)

    def stopped(*arguments: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(module, name, stopped)


# image tower


def test_each_training_of_a_chain_moves_every_weight_of_the_tower(
    making: ModuleType, tower: MiniImageTower, sentences: list[Tensor], tmp_path: Path
) -> None:  # mutation: the running mean, which takes no gradient, trained on as it is
    args = Namespace(work=tmp_path, workers=0)
    for seed in (0, 1):
        before = {name: value.clone() for name, value in tower.named_parameters()}
        run = making.pretrain(tower, sentences, tiny_plan(making, seed=seed), args)
        tower = run.mean.tower
        still = [name for name, value in tower.named_parameters() if torch.equal(value, before[name])]
        assert not still


def test_pixels_of_unit_length_are_those_of_the_dense_map(making: ModuleType, tower: MiniImageTower) -> None:
    student = making.Student(tower.eval(), unit_norm=True)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    sentences = normalize(torch.eye(19, 384)[None], dim=2)
    with torch.no_grad():
        text, _ = student(images, sentences)
        dense = normalize(tower(images).dense, dim=1)
        torch.testing.assert_close(text, 14.0 * torch.einsum("bkc,bchw->bkhw", sentences, dense), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("text", "value"), [("unit_norm=true", True), ("text=0", 0.0), ("batch=4", 4)])
def test_a_value_of_the_plan_is_read(making: ModuleType, text: str, value: object) -> None:
    assert making.setting(text)[1] == value


@pytest.mark.parametrize("text", ["foo", "bar=1", "unit_norm=True", "lr=fast", "seed=3"])
def test_what_is_no_value_of_the_plan_is_refused_at_once(making: ModuleType, text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no"):
        making.setting(text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--steps 5 --ship --set text=0", ", so not with --set"),
        ("--again --set lr=1e-3", ", so not with --set"),
        ("--again --steps 5", ", so not with --set or --steps"),
        ("", "give a new plan its --steps"),
        ("--go-on --ship", "give a new plan its --steps"),
    ],
)
def test_options_that_cannot_go_together_are_refused(
    making: ModuleType, words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        making.arguments(words.split())
    assert told in capsys.readouterr().err


def test_every_training_has_a_checkpoint_of_its_own(
    making: ModuleType,
    tower: MiniImageTower,
    sentences: list[Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # mutations: start, plan or text left out of its name; the file not looked for
    monkeypatch.setattr(making, "draw", lambda *_: tiny_scenes(making))
    args, other = Namespace(work=tmp_path, workers=0), deepcopy(tower)
    with torch.no_grad():
        other.projection.bias += 1
    trained: list[float] = []

    def train(start: MiniImageTower = tower, **changes: Any) -> int:
        trained.append(making.pretrain(start, sentences, tiny_plan(making, **changes), args).seconds)
        return len(list(tmp_path.glob("*.pt")))

    assert [train(), train(auxiliary=0.0), train(start=other), train(), train(auxiliary=0.0)] == [1, 2, 3, 3, 3]
    assert trained[3:] == trained[:2]  # these two are read, not trained again
    monkeypatch.setattr(making, "read_card", lambda: {"sha256": {"text.safetensors": "another"}})
    assert train() == 4


def test_a_stopped_training_goes_on_to_the_same_weights(
    making: ModuleType,
    tower: MiniImageTower,
    sentences: list[Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[str], ModuleType],
) -> None:  # mutations: student, mean, optimizer or step left out of the checkpoint
    module, scenes = script("mini_pretraining"), tiny_scenes(making)
    save_at_every_step(monkeypatch, module)

    def run(name: str) -> Any:
        torch.manual_seed(0)
        return making.Run(making.Student(deepcopy(tower)), tiny_plan(making, steps=2), tmp_path / name)

    whole = run("whole.pt")
    whole.train(scenes, sentences)
    stop_at(monkeypatch, module, "draw_batch", 1)
    with pytest.raises(KeyboardInterrupt):
        run("stopped.pt").train(scenes, sentences)
    rest = run("stopped.pt")
    assert rest.step == 1
    rest.train(scenes, sentences)
    for part in ("student", "mean"):
        expected, found = getattr(whole, part).state_dict(), getattr(rest, part).state_dict()
        assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


# text tower


def test_the_plan_of_the_text_tower_is_that_of_its_card(distilling: ModuleType) -> None:
    card = shipped_table()["text"]
    assert asdict(distilling.Plan()) == card["plan"]
    assert card["teacher_sha256"] == distilling.TEACHER_SHA256


def test_only_with_ship_is_the_package_written(
    distilling: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped: list[Any] = []
    stand_ins: dict[str, Any] = {
        "Teacher": lambda _: None,
        "make_lesson": lambda *_: SimpleNamespace(texts=[]),
        "Student": lambda _: SimpleNamespace(finish=lambda: None),
        "distil": lambda *_: 1.0,
        "score": lambda *_: {"student": 0.5},
        "ship": lambda *given: shipped.append(given),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(distilling, name, stand_in)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for more, times in ((), 0), (("--ship",), 1):
        monkeypatch.setattr(sys, "argv", ["make_text_student.py", "--teacher", "x", "--work", str(tmp_path), *more])
        distilling.main()
        assert len(shipped) == times and '{"student": 0.5}' in capsys.readouterr().out


class StandInTeacher:
    """A few word pieces with random tables."""

    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij")

    def table(self, name: str) -> Tensor:
        generator = torch.Generator().manual_seed(len(name))
        return torch.randn(len(self.vocabulary) if name == "word" else 512, 384, generator=generator)


def test_a_stopped_distillation_goes_on_to_the_same_weights(
    distilling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # mutations: student, optimizer or step left out of the checkpoint; the last step not saved
    texts = [f"{one} {two}" for one in "abc" for two in "defg"]
    targets = normalize(torch.randn(len(texts), 384, generator=torch.Generator().manual_seed(0)), dim=1)
    lesson, plan = distilling.Lesson(texts, targets, targets[:3], targets[0]), distilling.Plan(steps=4, batch=3)
    save_at_every_step(monkeypatch, distilling)

    def train(name: str) -> Any:
        torch.manual_seed(0)
        student = distilling.Student(StandInTeacher())
        distilling.distil(student, lesson, plan, tmp_path / name)
        return student.state_dict()

    whole = train("whole.pt")
    stop_at(monkeypatch, distilling, "distance", 2)
    with pytest.raises(KeyboardInterrupt):
        train("stopped.pt")
    monkeypatch.setattr(distilling, "time", time)  # no minute goes by any more
    rest = train("stopped.pt")
    assert [name for name, value in whole.items() if not torch.equal(value, rest[name])] == []
    monkeypatch.setattr(distilling, "distance", None)
    assert torch.equal(train("stopped.pt")["table"], whole["table"])  # nothing is left to be done

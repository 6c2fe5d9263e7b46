"""The scripts that made the mini model's image tower, on a few tiny scenes."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dgss.towers.mini import MiniImageTower
from dgss.towers.shipped import MiniSettings


@pytest.fixture
def making(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("make_image_tower")


@pytest.fixture
def tower() -> MiniImageTower:
    tower = MiniSettings(weights="none", frozen_norm=False).build(weights=False).image
    assert isinstance(tower, MiniImageTower)
    return tower


def test_each_training_of_a_chain_moves_every_weight_of_the_tower(
    making: ModuleType, tower: MiniImageTower, tmp_path: Path
) -> None:  # mutation: the running mean, which takes no gradient, trained on as it is
    args = Namespace(scenes=tmp_path / "scenes", work=tmp_path, workers=0)
    sentences = [torch.nn.functional.normalize(torch.eye(19, 384)[k : k + 1] + 0.1) for k in range(19)]
    for seed in (0, 1):
        before = {name: value.clone() for name, value in tower.named_parameters()}
        plan = making.Plan(rand=1, game=1, steps=1, seed=seed, batch=2, height=32, width=64)
        run = making.pretrain(tower, sentences, plan, tmp_path / str(seed), args)
        tower = run.mean.tower
        still = [name for name, value in tower.named_parameters() if torch.equal(value, before[name])]
        assert not still


def test_pixels_of_unit_length_are_those_of_the_dense_map(making: ModuleType, tower: MiniImageTower) -> None:
    student = making.Student(tower.eval(), unit_norm=True)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    sentences = torch.nn.functional.normalize(torch.eye(19, 384)[None], dim=2)
    with torch.no_grad():
        text, _ = student(images, sentences)
        dense = torch.nn.functional.normalize(tower(images).dense, dim=1)
        torch.testing.assert_close(text, 14.0 * torch.einsum("bkc,bchw->bkhw", sentences, dense), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("text", "value"), [("unit_norm=true", True), ("text=0", 0.0), ("batch=4", 4)])
def test_a_value_of_the_plan_is_read(making: ModuleType, text: str, value: object) -> None:
    assert making.setting(text)[1] == value


@pytest.mark.parametrize("text", ["foo", "bar=1", "unit_norm=True", "lr=fast", "seed=3"])
def test_what_is_no_value_of_the_plan_is_refused_at_once(making: ModuleType, text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no"):
        making.setting(text)


@pytest.mark.parametrize("words", ["--ship --set text=0", "--again --set lr=1e-3", "--again --steps 5"])
def test_options_that_cannot_go_together_are_refused(
    making: ModuleType, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        making.arguments(words.split())
    assert ", so not with --set" in capsys.readouterr().err


def test_a_training_does_not_go_on_from_one_that_started_elsewhere(
    making: ModuleType, tower: MiniImageTower, tmp_path: Path
) -> None:
    plan = making.Plan(rand=1, game=1, steps=0, seed=0)
    making.Run(making.Student(tower), plan, tmp_path / "checkpoint.pt")._save(tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit, match="started from other weights"):
        making.Run(making.Student(tower), plan, tmp_path / "checkpoint.pt")

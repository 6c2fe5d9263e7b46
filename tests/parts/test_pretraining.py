"""The scripts that made the mini model's image tower, on a few tiny scenes."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from dgss.towers.mini import MiniImageTower
from dgss.towers.settings import TowerSettings, build_towers

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import make_image_tower as script
from mini_pretraining import Plan, Student


@pytest.fixture
def tower() -> MiniImageTower:
    tower = build_towers(TowerSettings(weights="none", frozen_norm=False), weights=False).image
    assert isinstance(tower, MiniImageTower)
    return tower


def test_each_training_of_a_chain_moves_every_weight_of_the_tower(
    tower: MiniImageTower, tmp_path: Path
) -> None:  # mutation: the running mean, which takes no gradient, trained on as it is
    args = Namespace(scenes=tmp_path / "scenes", work=tmp_path, workers=0)
    sentences = [torch.nn.functional.normalize(torch.eye(19, 384)[k : k + 1] + 0.1) for k in range(19)]
    for seed in (0, 1):
        before = {name: value.clone() for name, value in tower.named_parameters()}
        plan = Plan(rand=1, game=1, steps=1, seed=seed, batch=2, height=32, width=64)
        run = script.pretrain(tower, sentences, plan, tmp_path / str(seed), args)
        tower = run.mean.tower
        still = [name for name, value in tower.named_parameters() if torch.equal(value, before[name])]
        assert not still


def test_pixels_of_unit_length_are_those_of_the_dense_map(tower: MiniImageTower) -> None:
    student = Student(tower.eval(), unit_norm=True)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    sentences = torch.nn.functional.normalize(torch.eye(19, 384)[None], dim=2)
    with torch.no_grad():
        text, _ = student(images, sentences)
        dense = torch.nn.functional.normalize(tower(images).dense, dim=1)
        torch.testing.assert_close(text, 14.0 * torch.einsum("bkc,bchw->bkhw", sentences, dense), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("text", "value"), [("unit_norm=true", True), ("text=0", 0.0), ("batch=4", 4)])
def test_a_value_of_the_plan_is_read(text: str, value: object) -> None:
    assert script.setting(text)[1] == value


@pytest.mark.parametrize("text", ["foo", "bar=1", "unit_norm=True", "lr=fast", "seed=3"])
def test_what_is_no_value_of_the_plan_is_refused_at_once(text: str) -> None:
    with pytest.raises(script.argparse.ArgumentTypeError, match="is no"):
        script.setting(text)

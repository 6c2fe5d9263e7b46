"""The published models by name: every key and shape, and every learning rate and decay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dgss.recipes.schema import Recipe
from dgss.training.optimizer import build_optimizer
from dgss.weights.reference import TQDM

RECIPES = {"gta": "gta5", "city": "cityscapes"}
"""How the files call a source, and how recipes do."""


@pytest.mark.golden("tqdm-fullsize")
def test_keys_shapes_rates_and_decays_of_the_published_models(golden_folder: Path) -> None:
    files = sorted(golden_folder.glob("*.json"))
    assert files
    for file in files:
        table = json.loads(file.read_text(encoding="utf-8"))
        tower, _, source = file.stem.rpartition("-")
        recipe = Recipe.load(f"tqdm-{tower}-{RECIPES[source]}")
        with torch.device("meta"):
            model = recipe.build(trained=True)
        state = {key: torch.empty(row[0], device="meta") for key, row in table["state"].items()}
        shapes = {name: value.shape for name, value in TQDM.translate(state).items()}
        assert {name: value.shape for name, value in model.state_dict().items()} == shapes, file.name
        rows = {key: table["groups"][row[1]] for key, row in table["state"].items() if len(row) == 2}
        trained = {TQDM.name(key): row for key, row in rows.items() if row["requires_grad"] and TQDM.name(key)}
        parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        assert parameters.keys() == trained.keys(), file.name
        assert sum(map(torch.numel, parameters.values())) == table["counts"]["receives_gradient_elements"]
        optimizer = build_optimizer(model.parameter_groups(), recipe.training.optimizer)
        found = {}
        for group in optimizer.param_groups:
            assert all(group[key] == pytest.approx(table["optimizer"][key]) for key in ("betas", "eps")), file.name
            found |= dict.fromkeys(group["parameter_names"], (group["base_lr"], group["weight_decay"]))
        assert found.keys() == trained.keys(), file.name
        for name, row in trained.items():
            assert found[str(name)] == pytest.approx((row["lr"], row["weight_decay"]), rel=1e-6), f"{file.name}: {name}"

"""The published models by name: every key and shape behind the towers, and every learning rate and decay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dgss.interfaces import Towers
from dgss.labels import label_space
from dgss.methods.tqdm import Tqdm, TqdmSettings
from dgss.weights.reference import TQDM
from tests.goldens.replay import RecordedText, RecordedTower


def published(table: dict[str, Any]) -> Tqdm:
    """tqdm at its published size on the meta device; the towers are empty, only their widths are needed."""
    state = {key: row[0] for key, row in table["state"].items()}
    (contexts, token_width), (embedding,) = state["contexts"][1:], state["gamma"]
    tap = torch.empty(1, state["backbone.fpn2.0.weight"][0], 1, 1)
    with torch.device("meta"):
        vectors = torch.empty(19, embedding)
        towers = Towers(RecordedTower([tap] * 4, vectors, vectors), RecordedText(vectors, vectors, token_width))
        settings = TqdmSettings(contexts=contexts, vision_weight=0.0)
        return settings.build(towers, label_space("cityscapes19"), torch.Generator())


@pytest.mark.golden("tqdm-fullsize")
def test_keys_shapes_rates_and_decays_of_the_published_models(golden_folder: Path) -> None:
    files = sorted(golden_folder.glob("*.json"))
    assert files
    for file in files:
        table = json.loads(file.read_text(encoding="utf-8"))
        model = published(table)
        model.settings = model.settings.model_copy(
            update={"embedding_decay": "level_embed" not in table["optimizer"]["custom_keys"]}
        )
        named = {key: TQDM.name(key) for key in table["state"]}
        theirs = {ours: table["state"][key] for key, ours in named.items() if ours is not None}
        assert {name: list(value.shape) for name, value in model.state_dict().items()} == {
            name: row[0] for name, row in theirs.items()
        }, file.name
        rate, decay = table["optimizer"]["lr"], table["optimizer"]["weight_decay"]
        for group in model.parameter_groups():
            for name, _ in group.parameters:
                wanted = table["groups"][theirs[name][1]]
                found = [rate * group.lr_scale, decay * group.decay_scale]
                assert found == pytest.approx([wanted["lr"], wanted["weight_decay"]], rel=1e-6), f"{file.name}: {name}"

"""The published models by name: every key and shape, and every learning rate and decay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dgss.interfaces import Towers
from dgss.labels import label_space
from dgss.methods.tqdm import Tqdm, TqdmSettings
from dgss.towers.clip import MEAN, STD, ClipText, image_trunk, pair_config, text_transformer, tokenizer
from dgss.towers.vision import PlainViT
from dgss.weights.reference import TQDM


def published(table: dict[str, Any]) -> Tqdm:
    """tqdm at its published size on the meta device, with the towers as a recipe makes them."""
    eva = "backbone.cls_token" in table["state"]
    config = pair_config("EVA02-L-14-336" if eva else "ViT-B-16-quickgelu")
    contexts = table["state"]["contexts"][0][1]
    with torch.device("meta"):
        trunk = image_trunk(config, 512, drop_path=0.0 if eva else 0.1)
        image = PlainViT(trunk, MEAN, STD, (7, 11, 15, 23) if eva else (3, 5, 7, 11), text_width=config["embed_dim"])
        text = ClipText(text_transformer(config), tokenizer(), contexts + 5)
        settings = TqdmSettings(contexts=contexts)
        return settings.build(Towers(image, text), label_space("cityscapes19"), torch.Generator())


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
        state = {key: torch.empty(row[0], device="meta") for key, row in table["state"].items()}
        shapes = {name: value.shape for name, value in TQDM.translate(state).items()}
        assert {name: value.shape for name, value in model.state_dict().items()} == shapes, file.name
        rows = {key: table["groups"][row[1]] for key, row in table["state"].items() if len(row) == 2}
        trained = {TQDM.name(key): row for key, row in rows.items() if row["requires_grad"] and TQDM.name(key)}
        parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        assert parameters.keys() == trained.keys(), file.name
        assert sum(map(torch.numel, parameters.values())) == table["counts"]["receives_gradient_elements"]
        rate, decay = table["optimizer"]["lr"], table["optimizer"]["weight_decay"]
        found = {
            name: (rate * group.lr_scale, decay * group.decay_scale)
            for group in model.parameter_groups()
            for name, _ in group.parameters
        }
        assert found.keys() == trained.keys(), file.name
        for name, row in trained.items():
            assert found[str(name)] == pytest.approx((row["lr"], row["weight_decay"]), rel=1e-6), f"{file.name}: {name}"

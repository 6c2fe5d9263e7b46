"""The weights this package ships, with their licences. Light: loads neither torch nor pydantic."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class ModelInfo:
    """Weights by name. made: how, from whose work. used_by: what in a recipe asks for them."""

    name: str
    summary: str
    licence: str
    made: str
    used_by: str


def list_models() -> list[ModelInfo]:
    """The weights that can be used without fetching anything, as the card beside them tells."""
    text = resources.files("dgss").joinpath("towers", "weights", "card.json").read_text(encoding="utf-8")
    card = json.loads(text)
    return [
        ModelInfo(f"mini-{part}", summary, card[part]["licence"], card[part]["made"], used_by)
        for part, (summary, used_by) in _PARTS.items()
    ]


_PARTS = {
    "image": ("image tower of the mini vision-language model", "tower.name=mini, tower.weights=pretrained"),
    "text": ("text tower of the mini vision-language model", "tower.name=mini"),
}

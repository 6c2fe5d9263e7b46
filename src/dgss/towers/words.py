"""The words of the mini model: what it was trained with, and what it never read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

Phrases = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class StreetWords:
    """Phrases per class name, in the order of the Cityscapes classes.

    templates: sentences around a training phrase. frozen_template: the sentence of the fixed text embeddings (tqdm's
    T0). training, unseen: phrases per class; no unseen phrase takes part in any training.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    frozen_template: str
    unseen_template: str
    training: Phrases
    unseen: Phrases


@cache
def street_words() -> StreetWords:
    """The table `tables/street_words.json`."""
    text = resources.files("dgss").joinpath("tables", "street_words.json").read_text(encoding="utf-8")
    table = json.loads(text)
    return StreetWords(
        classes=tuple(table["classes"]),
        templates=tuple(table["templates"]),
        frozen_template=table["frozen_template"],
        unseen_template=table["unseen_template"],
        training={name: tuple(phrases) for name, phrases in table["training"].items()},
        unseen={name: tuple(phrases) for name, phrases in table["unseen"].items()},
    )

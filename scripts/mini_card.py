"""The card of the mini model: writes the shipped files, their hashes, and how they were made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from dgss.files import sha256, write_bytes, write_text

WEIGHTS = Path(__file__).parents[1] / "src" / "dgss" / "towers" / "weights"
_HEAD = """# The mini vision-language model

Written by `scripts/make_text_student.py` and `scripts/make_image_tower.py` from what they measured; change those, not
this page. `card.json` holds the same figures for programs.

What it is: a small image tower and a small text tower of one joint space, shipped so that every recipe runs without
fetching anything. What it is not: CLIP. Its image side saw photographs only through ImageNet's labels, and learned
the joint space from drawn streets *with labels* (looks `rand` and `game`). What it shows about methods and domains
holds for drawn streets; it is no claim about the world.
"""


def record(part: str, facts: dict[str, Any], tensors: dict[str, Tensor], extra: dict[str, bytes]) -> None:
    """Writes `<part>.safetensors`, further files, `card.json` and `CARD.md`; the card comes last."""
    contents = {f"{part}.safetensors": save({key: value.contiguous() for key, value in tensors.items()}), **extra}
    for name, content in contents.items():
        write_bytes(WEIGHTS / name, content)
    card = read_card()
    card.setdefault("sha256", {}).update({name: sha256(WEIGHTS / name) for name in contents})
    card[part] = {**facts, "bytes": {name: len(content) for name, content in contents.items()}}
    write_text(WEIGHTS / "card.json", json.dumps(card, indent=2) + "\n")
    write_text(WEIGHTS / "CARD.md", render(card))


def read_card() -> dict[str, Any]:
    """The figures as they stand; empty before the first script ran."""
    path = WEIGHTS / "card.json"
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return card


def short_hash(facts: dict[str, Any]) -> str:
    """Of all that a training depends on; a checkpoint has it as its name, so that no other training takes it up."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def render(card: dict[str, Any]) -> str:
    """The page, one section a part."""
    page = [_HEAD]
    for part, title in (("text", "Text tower"), ("image", "Image tower")):
        if part in card:
            page += [f"## {title}\n", *(_line(key, value) for key, value in card[part].items()), ""]
    page += ["## Files\n", "| file | SHA-256 |", "| --- | --- |"]
    page += [f"| `{name}` | `{digest}` |" for name, digest in sorted(card["sha256"].items())]
    return "\n".join(page) + "\n"


def _line(key: str, value: object) -> str:
    name = key.replace("_", " ")
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return "\n".join(
            f"- **{name.removesuffix('s')} {number}**: {_words(each)}" for number, each in enumerate(value, 1)
        )
    return f"- **{name}**: {_words(value)}"


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_words(each) if isinstance(each, dict) else f"{name} {each}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

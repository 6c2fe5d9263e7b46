"""Recipes as text: the presets of the package by name, files by path, overrides from the command line.

Nothing here knows what the keys mean: `recipes/schema.py` does. Listing and copying load neither torch nor pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dgss.errors import DgssError, RecipeError, nearest
from dgss.files import write_text

DEFAULT_RECIPE = "tqdm-mini-streets"
"""What `dgss train` trains when nothing is said."""


@dataclass(frozen=True)
class RecipeInfo:
    """A preset of the package: its name and one line about it."""

    name: str
    summary: str


def list_recipes() -> list[RecipeInfo]:
    """The presets of the package, by name."""
    return [RecipeInfo(name, str(parse(preset_text(name), name).get("summary", ""))) for name in preset_names()]


def preset_names() -> list[str]:
    """The names of the presets, sorted."""
    folder = resources.files("dgss").joinpath("recipes", "presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The YAML of a preset. Raises `RecipeError` on an unknown name."""
    names = preset_names()
    if name not in names:
        raise RecipeError(f"no recipe is called {name!r}, and no such file is there: {nearest(name, names)}")
    return resources.files("dgss").joinpath("recipes", "presets", f"{name}.yaml").read_text(encoding="utf-8")


def read(source: str | Path) -> dict[str, Any]:
    """The values of a preset (by name) or of a YAML file (by path), unchecked. Raises `RecipeError`."""
    path = Path(source).expanduser()
    if not path.is_file():
        if isinstance(source, Path) or path.suffix in (".yaml", ".yml"):
            raise RecipeError(f"no recipe file {path}; `dgss recipes list` names the recipes of the package")
        return parse(preset_text(str(source)), str(source))
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {path} as text: {error}") from error


def copy(name: str, target: Path) -> Path:
    """Writes a preset to a file of the user's, who may then change it. Raises `DgssError` where the file exists."""
    text = preset_text(name)
    if target.is_dir():
        target = target / f"{name}.yaml"
    if target.exists():
        raise DgssError(f"{target} exists; name another file")
    write_text(target, text)
    return target


def parse(text: str, source: str) -> dict[str, Any]:
    """YAML to plain values; `source` names it in errors. Raises `RecipeError`."""
    try:
        values = PlainLoader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{source} is no YAML: {' '.join(str(error).split()) or 'nested too deep'}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{source} holds no recipe: it should be keys and values, `name: ...` first")
    return values


def parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """`["training.steps=200", ...]` to nested values, and a line for each override that cannot be read."""
    values: dict[str, Any] = {}
    faults = []
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            faults.append(f"{override}: an override is written KEY=VALUE, as in training.steps=200")
            continue
        try:
            value = PlainLoader(text).get_single_data()
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            faults.append(f"{key} = {text!r}: no YAML value ({' '.join(str(error).split())})")
            continue
        for part in reversed(parts):
            value = {part: value}
        values = merge(values, value)
    return values, faults


def merge(base: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `above` laid over it, key by key and level by level."""
    merged = dict(base)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class PlainLoader(yaml.SafeLoader):
    """The safe loader with fewer surprises: a key given twice is an error, and plain words mean what they seem to.

    PyYAML follows YAML 1.1, where 1e-5 is a string, `on` is true, 012 is ten and 1:30 is ninety. Here numbers and
    truth values are those of YAML 1.2. Aliases, which can repeat a value without end, are refused.
    """

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - stands in for the parent's table

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The parent's, without aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "a recipe has no aliases (*name)", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The parent's, with each key at most once."""
        keys = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?\d+", "-+0123456789"),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
PlainLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))

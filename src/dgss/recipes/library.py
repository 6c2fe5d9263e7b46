"""Recipes as text: the presets of the package by name, files by path, overrides from the command line.

A recipe may stand on another: `base: NAME`, then only what differs. What the other keys mean `recipes/schema.py` knows
alone. Listing and copying load neither torch nor pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dgss.errors import DgssError, RecipeError, nearest
from dgss.files import RUNS, RunFolder, write_text

DEFAULT_RECIPE = "tqdm-mini-streets"
"""What `dgss train` trains when nothing is said."""

ABSENT = object()
"""Stands where a key has no value."""

OWN = ("name", "summary", "expected")
"""What a recipe says about itself alone: never taken from its base."""


@dataclass(frozen=True)
class RecipeInfo:
    """A preset of the package: its name and one line about it. variant: of its base, with a part switched."""

    name: str
    summary: str
    variant: bool = False


def list_recipes() -> list[RecipeInfo]:
    """The presets of the package, by name; variants of others come last."""
    found = [(name, parse(show_recipe(name), name)) for name in preset_names()]
    recipes = [RecipeInfo(name, str(values.get("summary", "")), _is_variant(values)) for name, values in found]
    return sorted(recipes, key=lambda recipe: recipe.variant)


def _is_variant(values: Mapping[str, Any]) -> bool:
    """Whether a recipe only changes parts of its base's method or tower: no other method, model or data."""
    changed = values.keys() - {*OWN, "base"}
    other = "name" in values.get("method", {}) or "model" in values.get("tower", {})
    return "base" in values and changed <= {"method", "tower"} and not other


def preset_names() -> list[str]:
    """The names of the presets, sorted."""
    folder = resources.files("dgss").joinpath("recipes", "presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def show_recipe(name: str) -> str:
    """The YAML of a preset, as it stands in the package. Raises `RecipeError` on an unknown name."""
    names = preset_names()
    if name not in names:
        raise RecipeError(f"no recipe is called {name!r}: {nearest(name, names)}")
    return resources.files("dgss").joinpath("recipes", "presets", f"{name}.yaml").read_text(encoding="utf-8")


def unnamed_recipe(out: Path | None, resume: bool) -> str | Path:
    """What is trained where no recipe is named: the file of the run in `out` when resuming, else the default."""
    if not resume:
        return DEFAULT_RECIPE
    folder = RunFolder(RUNS / DEFAULT_RECIPE if out is None else out)
    folder.begun(resume)
    return folder.recipe


@dataclass(frozen=True)
class Layer:
    """What one preset (by name) or one file (by path) gives by itself."""

    source: str | Path
    values: dict[str, Any]

    @property
    def identity(self) -> str | Path:
        """The same for the same preset or file, however it is written."""
        return self.source.resolve() if isinstance(self.source, Path) else self.source


def read(source: str | Path) -> dict[str, Any]:
    """The values of a preset (by name) or of a YAML file (by path), laid over those of its `base`; unchecked.

    Raises `RecipeError`.
    """
    return flat(layers(source))


def flat(found: Iterable[Layer]) -> dict[str, Any]:
    """The values of layers, each laid over those before it."""
    return reduce(merge, (layer.values for layer in found), {})


def layers(source: str | Path) -> list[Layer]:
    """A preset or file last, before it what it takes from its `base`, before that what this takes from its own.

    Raises `RecipeError`.
    """
    chain, bases = [_open(source)], []
    while "base" in chain[-1].values:
        layer = chain[-1]
        bases.append(layer.values.pop("base"))
        try:
            chain.append(_open_base(bases[-1], layer))
            if chain[-1].identity in [above.identity for above in chain[:-1]]:
                raise RecipeError(f"a circle ({' -> '.join(str(it.source) for it in chain)}); take one base out")
        except (RecipeError, OSError, RuntimeError) as error:  # a name too long for a file, `~name` of nobody
            raise RecipeError(f"recipe {layer.source}: base = {bases[-1]!r}: {error}") from error
    found: list[Layer] = []
    for layer in reversed(chain):
        whole = flat(found)
        kept = [(below.source, _kept(below.values, whole, layer.values)) for below in found]
        found = [Layer(name, {key: values[key] for key in values if key not in OWN}) for name, values in kept]
        found.append(layer)
    return found


def _kept(below: dict[str, Any], whole: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """What still counts of the values `below` under those `above`: no group that is replaced.

    whole: all that lies under `above`; it says of which kind a group was that `above` gives as another.
    """
    kept = {}
    for key, value in below.items():
        new = above.get(key, ABSENT)
        if isinstance(value, dict) and new is not ABSENT:
            old = whole[key]
            if not isinstance(new, dict) or ("name" in old and new.get("name", old["name"]) != old["name"]):
                continue
            value = _kept(value, old, new)
        kept[key] = value
    return kept


def _open(source: str | Path) -> Layer:
    """A preset, or a file where there is one under that name."""
    path = Path(source).expanduser()
    if path.is_file() or isinstance(source, Path) or path.suffix in (".yaml", ".yml"):
        return _open_file(path)
    try:
        return _open_preset(str(source))
    except RecipeError as error:
        raise RecipeError(f"no file {path} is there, and {error}") from None


def _open_base(base: Any, above: Layer) -> Layer:
    """The recipe that `above` names as its base; files are found from the folder of the file that names them."""
    if not isinstance(base, str) or not base:
        raise RecipeError("should be the name of a recipe, or a file's path from the folder of this one")
    path = Path(base).expanduser()
    if isinstance(above.source, Path):
        path = above.source.parent / path
        if path.is_file() or path.suffix in (".yaml", ".yml"):
            return _open_file(path)
    return _open_preset(base)


def _open_preset(name: str) -> Layer:
    return Layer(name, parse(show_recipe(name), name))


def _open_file(path: Path) -> Layer:
    if not path.is_file():
        raise RecipeError(f"no recipe file {path}; `dgss recipes list` names the recipes of the package")
    try:
        return Layer(path, parse(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {path} as text: {error}") from error


def copy_recipe(name: str, file: str | Path) -> Path:
    """Writes a preset to a file of the user's, who may then change it and train by it; answers the file.

    file: a new one, or a folder for it. Raises `DgssError` where it exists or cannot be written.
    """
    text, target = show_recipe(name), Path(file).expanduser()
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
        raise RecipeError(f"{source} is no YAML: {_problem(error)}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{source} holds no recipe: it should be keys and values, `name: ...` first")
    return values


def parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """`["training.steps=200", ...]` to nested values, and a line for each override that cannot be read."""
    values: dict[str, Any] = {}
    faults = []
    for override in overrides:
        name, equals, text = override.partition("=")
        parts = [part.strip() for part in name.split(".")]
        if not equals or not all(parts):
            faults.append(f"{override}: an override is written KEY=VALUE, as in training.steps=200")
            continue
        key = ".".join(parts)
        try:
            values = merge(values, nested(key, PlainLoader(text).get_single_data()))
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            faults.append(f"{key} = {text!r}: no YAML value; {_problem(error)}")
    return values, faults


_WORDS = {
    r"mapping values are not allowed here": "no key can stand here; check the indent, quote a text with a colon",
    r"found unexpected end of stream": "a quotation mark is not closed",
    r"expected <block end>.*": "not indented like the lines it belongs to",
    r"found character '\\t'.*": "a tab; indent with spaces",
    r"found unhashable key": "a key should be text",
    r"expected the node content, but found": "a value should stand before",
    r"that cannot start any token": "that begins no value",
    r"'<(stream end|document start)>'|'\\x00'": "the end",
    r"^but ": "",
}
"""What PyYAML says, and what we say instead."""


def _problem(error: Any) -> str:
    """What YAML says is wrong: line, column and a few words."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, ValueError):
        return "a number has too many digits"
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1} may not stand in it"
    problem, mark, context = error.problem, error.problem_mark, error.context_mark
    for theirs, ours in _WORDS.items():
        problem = re.sub(theirs, ours, problem)
    begun = f" (in what begins at line {context.line + 1})" if context and context.line < mark.line else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{begun}"


def nested(key: str, value: Any) -> dict[str, Any]:
    """A value under its dotted key, as nested values."""
    for part in reversed(key.split(".")):
        value = {part: value}
    found: dict[str, Any] = value
    return found


def value_at(values: Any, key: str) -> Any:
    """The value under a dotted key; `ABSENT` where there is none."""
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return ABSENT
        values = values[part]
    return values


def merge(base: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `above` laid over it, key by key and level by level."""
    merged = dict(base)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= leaves(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def holds(values: Any, key: str) -> bool:
    """Whether nested values give the dotted key."""
    for part in key.split("."):
        if not isinstance(values, Mapping):
            return values is not None
        if part not in values:
            return False
        values = values[part]
    return True


class PlainLoader(yaml.SafeLoader):
    """The safe loader with fewer surprises: a key given twice is an error, and plain words mean what they seem to.

    PyYAML follows YAML 1.1, where 1e-5 is a string, `on` is true, 012 is ten and 1:30 is ninety. Here numbers and
    truth values are those of YAML 1.2. Aliases, which can repeat a value without end, and tags are refused.
    """

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - stands in for the parent's table

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The parent's, without aliases and tags."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)
        if alias or getattr(event, "tag", None):
            what = "aliases (*name)" if alias else "tags (!name)"
            raise yaml.composer.ComposerError(None, None, f"a recipe has no {what}", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The parent's, with each key at most once."""
        names = [str(key.value) for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if names[number] in names[:number]:
                raise yaml.constructor.ConstructorError(None, None, f"{names[number]!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?\d+", "-+0123456789"),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
PlainLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))

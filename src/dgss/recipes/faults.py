"""What is wrong with the values of a recipe: one line a fault, with the key, the value seen and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dgss.methods import MethodSettings


def explain(error: ValidationError, values: Mapping[str, Any], recipe: type[BaseModel]) -> list[str]:
    """One line for each wrong key: the key, the value seen, what is allowed; the members of a union together."""
    found: dict[str, tuple[Any, list[str]]] = {}
    for fault in error.errors(include_url=False):
        key, seen = _place(fault["loc"], values, fault["type"] == "missing")
        if fault["type"].startswith("union_tag"):
            key, seen = f"{key}.name", fault["ctx"].get("tag", _ABSENT)
        reason = _reason(fault["type"], fault["msg"], key, recipe)
        found.setdefault(key, (seen, []))[1].append(reason)
    lines = []
    for key, (seen, reasons) in found.items():
        shown = "" if seen is _ABSENT else f" = {_short(seen)}"
        lines.append(f"{key}{shown}: {' or '.join(dict.fromkeys(reasons))}")
    return lines


_ABSENT = object()


def _place(location: Sequence[str | int], values: Any, missing: bool) -> tuple[str, Any]:
    """The dotted key of an error and the value seen there; names of union members in the location are left out."""
    parts: list[str] = []
    for number, part in enumerate(location):
        row = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        known = row or (isinstance(values, Mapping) and part in values)
        if not known and not (missing and number == len(location) - 1):
            continue
        values = values[part] if known else _ABSENT
        parts.append(str(part))
    return ".".join(parts), values


def _reason(kind: str, message: str, key: str, recipe: type[BaseModel]) -> str:
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest_key(key, recipe)}"
    if kind.startswith("union_tag"):
        return f"should be one of {', '.join(method_settings())}"
    return message.removeprefix("Value error, ").removeprefix("Input ")


def _nearest_key(key: str, recipe: type[BaseModel]) -> str:
    """The nearest among all keys of a recipe, those beside the wrong one first."""
    above, _, own = key.rpartition(".")
    keys = _all_keys(recipe)
    if key in keys:
        return "another method has it"
    beside = {known.rpartition(".")[2]: known for known in keys if known.rpartition(".")[0] == above}
    close = get_close_matches(own, beside, n=1) or get_close_matches(key, keys, n=1)
    if close:
        return f"did you mean {beside.get(close[0], close[0])}?"
    elsewhere = [known for known in keys if known.rpartition(".")[2] == own]
    return f"did you mean {' or '.join(elsewhere[:3])}?" if elsewhere else f"known: {', '.join(sorted(beside))}"


def _all_keys(recipe: type[BaseModel]) -> list[str]:
    keys = _keys(recipe, "")
    for settings in method_settings().values():
        keys += _keys(settings, "method.")
    return list(dict.fromkeys(keys))


def _keys(settings: type[BaseModel], prefix: str) -> list[str]:
    keys = []
    for name, field in settings.model_fields.items():
        keys.append(prefix + name)
        for kind in _kinds(field.annotation):
            keys += _keys(kind, f"{prefix}{name}.") if issubclass(kind, BaseModel) else []
    return keys


def method_settings() -> dict[str, type[BaseModel]]:
    """The settings classes of the union of methods, by name."""
    union = get_args(MethodSettings)[0]
    return {member.model_fields["name"].default: member for member in get_args(union) or (union,)}


def truth_for_number(values: Any, settings: type[BaseModel], prefix: str = "") -> list[str]:
    """Where `true` or `false` stands for a number: allowed by pydantic, a slip in a recipe."""
    faults = []
    for name, field in settings.model_fields.items():
        value, kinds = values.get(name), _kinds(field.annotation)
        inner = [kind for kind in kinds if issubclass(kind, BaseModel)]
        if isinstance(value, Mapping) and inner:
            chosen = method_settings().get(str(value.get("name"))) if f"{prefix}{name}" == "method" else inner[0]
            faults += truth_for_number(value, chosen, f"{prefix}{name}.") if chosen else []
        elif {int, float} & kinds and bool not in kinds:
            slipped = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, bool)]
            faults += [f"{prefix}{name} = {value}: should be a number" for _ in slipped[:1]]
    return faults


def _kinds(annotation: Any) -> set[type]:
    """The plain classes in an annotation such as `tuple[int, int] | None`."""
    inner = {kind for part in get_args(annotation) for kind in _kinds(part)}
    return inner | {annotation} if isinstance(annotation, type) and not get_args(annotation) else inner


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""What is wrong with the values of a recipe: one line a fault, with the key, the value seen and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dgss.recipes.library import ABSENT, merge, nested, value_at

Fields = Mapping[str, FieldInfo]

# pydantic's type of an error to what is allowed, with the names of the error's context
_LIMITS = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "finite_number": "a finite number",
}
_TYPE = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path", NoneType: "null"}


def too_small(sides: Mapping[str, tuple[int, int] | int | None], least: int, why: str) -> list[str]:
    """Which of the sizes and single sides that are given have fewer pixels than `least`, one line each."""
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in sides.items() if value}
    return [
        f"{key} = {value}: should be at least {least} pixels, {why}"
        for key, value in given.items()
        if (min(value) if isinstance(value, list) else value) < least
    ]


def explain(error: ValidationError, values: Mapping[str, Any], recipe: type[BaseModel]) -> list[str]:
    """One line for each fault: the dotted key, the value seen, what is allowed."""
    fields = fields_of(recipe)
    for settings, group in _chosen(values, fields).values():
        fields = {**fields, **fields_of(settings, f"{group}.")}  # where two of a union share a key, the chosen one's
    lines = [line for fault in error.errors(include_url=False) for line in _explain(fault, values, fields)]
    return list(dict.fromkeys(lines))  # each member of a union complains, and all in the same words


def _explain(fault: ErrorDetails, values: Mapping[str, Any], fields: Fields) -> list[str]:
    kind, (key, seen) = fault["type"], _place(fault["loc"], values)
    if kind == "value_error":  # of a check of ours; one across the fields of a group begins with the field to blame
        why = str(fault["ctx"]["error"]).splitlines()
        return [f"{key}.{it}" if f"{key}.{it.split()[0]}" in fields else _line(key, seen, it) for it in why]
    if kind == "missing" and isinstance(seen, Mapping):  # else an item of a list, which is then of the wrong form
        return [f"{_join(key, fault['loc'][-1])}: is missing"]
    if kind == "extra_forbidden":
        return [_unknown(key, seen, fields, str(fault["loc"][-1]), _others(values, fields))]
    if kind == "invalid_key":
        return [f"{_join(_place(fault['loc'][:-1], values)[0], fault['loc'][-1])}: unknown key; it should be text"]
    if kind.startswith("union_tag"):
        return [_line(f"{key}.name", value_at(seen, "name"), f"should be one of {', '.join(members(fields[key]))}")]
    while key and key not in fields:  # an item of a list or table: the whole is shown
        key = key.rpartition(".")[0]
    field, seen = fields.get(key), value_at(values, key)
    if kind in _LIMITS:
        limit = _LIMITS[kind].format(**{k: str(v).removesuffix(".0") for k, v in fault.get("ctx", {}).items()})
        item = f"{fault['input']} " if isinstance(fault["loc"][-1], int) else ""
        null = " or null" if field and not item and NoneType in _kinds(field.annotation) else ""
        return [_line(key, seen, f"{item}should be {limit}{null}")]
    allowed = field.description or _allowed(field.annotation, key) if field else ""
    return [_line(key, seen, f"should be {allowed}" if allowed else fault["msg"])]


def _place(location: Sequence[str | int], values: Any) -> tuple[str, Any]:
    """The dotted key of an error and the value seen there; names of union members in the location are left out."""
    key = ""
    for part in location:
        row = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        if row or (isinstance(values, Mapping) and part in values):
            key, values = _join(key, part), values[part]
    return key, values


def _chosen(values: Mapping[str, Any], fields: Fields) -> dict[str, tuple[type[BaseModel], str]]:
    """The settings of the chosen method and tower, each with its group; none while none is chosen."""
    found: dict[str, tuple[type[BaseModel], str]] = {}
    for group, default in (("method", None), ("tower", "mini")):  # as `schema.py` has it
        name = value_at(values, f"{group}.name")
        settings = members(fields[group]).get(str(default if name is ABSENT else name)) if group in fields else None
        found |= {group: (settings, group)} if settings is not None else {}
    return found


def _others(values: Mapping[str, Any], fields: Fields) -> dict[str, str]:
    """The keys that the chosen method and tower have not and another has, with that one's name."""
    found: dict[str, str] = {}
    for settings, group in _chosen(values, fields).values():
        own = fields_of(settings, f"{group}.")
        for name, other in members(fields[group]).items():
            found |= {key: name for key in fields_of(other, f"{group}.") if key not in own}
    return found


def _unknown(key: str, seen: Any, fields: Fields, own: str, others: Mapping[str, str]) -> str:
    """own: the key's last part as written. others: the keys of other methods, which are not proposed."""
    if "." in own:
        levels = f"{own.replace('.', ': {')}: ...{'}' * own.count('.')}"
        return _line(key, seen, f"unknown key; dots are for the command line, elsewhere write {levels}")
    while isinstance(seen, Mapping) and len(seen) == 1:
        ((name, seen),) = seen.items()
        key = _join(key, name)
    if key in others:
        return _line(key, seen, f"unknown key; {others[key]} has it")
    fields = {known: field for known, field in fields.items() if known not in others}
    return _line(key, seen, f"unknown key; {_nearest_key(key, fields)}")


def _nearest_key(key: str, fields: Fields) -> str:
    """The known key whose last part is most like that of `key`, and among several the one most alike as a whole."""
    above, _, own = key.rpartition(".")
    likeness = {known: (_alike(own, known.rpartition(".")[2]), _alike(key, known)) for known in fields}
    best = max(likeness, key=lambda known: likeness[known])
    if likeness[best][0] >= 0.7:
        return f"did you mean {best}?"
    if above and above not in fields:
        while (group := above.rpartition(".")[0]) and group not in fields:
            above = group
        return _nearest_key(above, fields)
    beside = [name for group, _, name in (known.rpartition(".") for known in fields) if group == above]
    return f"known{f' in {above}' if above else ''}: {', '.join(beside)}"


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()


@cache
def fields_of(settings: type[BaseModel], prefix: str = "") -> Fields:
    """All fields by dotted key, in their order; those of every method under `method`."""
    fields: dict[str, FieldInfo] = {}
    for name, field in settings.model_fields.items():
        fields[prefix + name] = field
        for kind in _kinds(field.annotation):
            fields |= fields_of(kind, f"{prefix}{name}.") if issubclass(kind, BaseModel) else {}
    return fields


def members(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The settings classes of the union in a field, such as `method`, by name."""
    kinds = [kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel) and "name" in kind.model_fields]
    return {kind.model_fields["name"].default: kind for kind in kinds}


def truth_for_number(values: Mapping[str, Any], recipe: type[BaseModel]) -> list[str]:
    """Where `true` or `false` stands for a number: allowed by pydantic, a slip in a recipe."""
    faults = []
    for key, field in fields_of(recipe).items():
        seen, kinds = value_at(values, key), _kinds(field.annotation)
        slipped = any(isinstance(part, bool) for part in (seen if isinstance(seen, list) else [seen]))
        if slipped and {int, float} & set(kinds) and bool not in kinds:
            faults.append(_line(key, seen, f"should be {_allowed(field.annotation, key)}"))
    return faults


def split_lists(values: dict[str, Any], recipe: type[BaseModel]) -> dict[str, Any]:
    """`size=96,192`, as typed at the command line, is a list of two."""
    for key, field in fields_of(recipe).items():
        text = value_at(values, key)
        lists = any(get_origin(part) is tuple for part in (field.annotation, *get_args(field.annotation)))
        if isinstance(text, str) and lists:
            values = merge(values, nested(key, [part.strip() for part in text.split(",")]))
    return values


def _allowed(kind: Any, key: str) -> str:
    """What a value of a type may be, in the words and brackets of a recipe."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a group ({key}.{'name' if 'name' in kind.model_fields else next(iter(kind.model_fields))}=...)"
    parts = ["..." if part is ... else _allowed(part, key) for part in inner]
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(parts))
    if origin in (tuple, list):
        return f"[{', '.join(parts)}]"
    if origin is dict:
        return f"{{{': '.join(parts)}, ...}}"
    return _allowed(inner[0], key) if origin is Annotated else _TYPE.get(kind, str(kind))


def _kinds(annotation: Any) -> list[type]:
    """The plain classes in an annotation such as `tuple[int, int] | None`."""
    inner = [kind for part in get_args(annotation) for kind in _kinds(part)]
    return inner or [annotation] * isinstance(annotation, type)


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _line(key: str, seen: Any, reason: str) -> str:
    text = json.dumps(seen) if seen is None or isinstance(seen, bool) else repr(seen)
    shown = "" if seen is ABSENT else f" = {text if len(text) <= 60 else f'{text[:57]}...'}"
    return f"{key}{shown}: {reason}"

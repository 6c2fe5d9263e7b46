"""The recipe of a training: the sum of the settings that stand beside the code which reads them.

Every fault of a recipe is found at once, before anything is loaded or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from dgss.data.domains import Domain, domain
from dgss.data.transforms import TransformSettings
from dgss.errors import DataError, RecipeError
from dgss.inference.windows import InferenceSettings
from dgss.interfaces import Method
from dgss.labels import LabelSpace, label_space
from dgss.methods import MethodSettings
from dgss.methods.mask2former import Mask2FormerSettings
from dgss.methods.tqdm import TqdmSettings
from dgss.recipes import library
from dgss.recipes.faults import explain, method_settings, truth_for_number
from dgss.towers.settings import Normalize, TowerSettings, build_towers
from dgss.training.loop import LoopSettings

SMALLEST_SIDE = 32
"""The least that a tower reads: its coarsest stride."""

Side = Annotated[int, Field(ge=SMALLEST_SIDE, le=8192)]
Size = tuple[Side, Side]
"""(H, W) in pixels."""
DrawnSide = Annotated[int, Field(ge=32, le=2048)]  # the buffers of larger pictures take gigabytes


class DrawnSettings(BaseModel):
    """How many drawn streets are made, and how large: of the source to train on, of every domain to score on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_images: int = Field(default=300, ge=1, le=5000)
    score_images: int = Field(default=24, ge=1, le=5000)
    size: tuple[DrawnSide, DrawnSide] = (128, 256)


class Expected(BaseModel):
    """What the recipe gave when it was last run: mIoU in percent, the command and the machine. Nothing reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str = ""
    machine: str = ""
    seconds: float | None = None
    peak_gb: float | None = None
    source: float | None = None
    targets: dict[str, float] = {}
    mean: float | None = None


def _keep_objects(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Any settings object passes, so that a method outside this package can be used from Python."""
    return value if isinstance(value, BaseModel) and hasattr(value, "build") else handler(value)


def _split(value: Any) -> Any:
    """`targets=camvid,streets-fog`, as typed at the command line, is a list of two."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class _Dumper(yaml.SafeDumper):
    """Writes what `library` reads, with lists in one line."""

    yaml_implicit_resolvers = library.PlainLoader.yaml_implicit_resolvers


_Dumper.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


class Recipe(BaseModel):
    """What is trained, on what, how, and where it is scored.

    seed: of everything random. source: the domain to train on. targets: domains to score on; the source among them is
    left out. data: one folder for all domains, or one per domain, `default` for the others. size: (H, W) of training
    crops. normalize: of the images, None as the tower was trained. method: a name with its settings; from Python any
    settings object.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    summary: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    source: str
    targets: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    data: Path | dict[str, Path] | None = None
    drawn: DrawnSettings = DrawnSettings()
    tower: TowerSettings = TowerSettings()
    size: Size
    normalize: Normalize | None = None
    method: Annotated[SerializeAsAny[MethodSettings], WrapValidator(_keep_objects)]
    augment: TransformSettings = TransformSettings()
    training: LoopSettings = LoopSettings()
    inference: InferenceSettings = InferenceSettings()
    expected: Expected | None = None

    @classmethod
    def load(cls, source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """A preset by its name or a file by its path, with overrides like `training.steps=200`.

        Raises one `RecipeError` that names every fault.
        """
        return resolve(source, overrides).recipe

    @classmethod
    def parse(cls, text: str, source: str, like: Recipe | None = None) -> Recipe:
        """A recipe from YAML; `source` names it in errors. Raises one `RecipeError` that names every fault.

        like: a recipe whose method may come from outside the package; the text's method is read as one of its kind.
        """
        values = library.parse(text, source)
        if like is not None and not _in_schema("method", like.method):
            try:
                values["method"] = type(like.method).model_validate(values.get("method"))
            except ValidationError as error:
                reason = " ".join(str(error).split())
                raise RecipeError(f"{source}: its method is no {type(like.method).__name__} ({reason})") from error
        return _validate(values, [])

    def change(self, **values: Any) -> Recipe:
        """The same recipe with other values, e.g. `change(source="streets-photo", training={"steps": 200})`."""
        return _changed(self, values, [])

    def with_overrides(self, overrides: Sequence[str]) -> Recipe:
        """The same recipe with overrides as typed at the command line, e.g. `["training.steps=200"]`."""
        return _changed(self, *library.parse_overrides(overrides))

    def dump(self) -> str:
        """All values as YAML, defaults too; `Recipe.load` reads an equal recipe from it."""
        values = self.model_dump(mode="json")
        return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)

    def build(self, trained: bool = False) -> Method:
        """The model. trained: only its shape is wanted; weights will be loaded and no loss computed."""
        towers = build_towers(self.tower, self.normalize, weights=not trained, seed=self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        method: Method = self.method.build(towers, self.labels, generator, teacher=not trained)
        return method

    @property
    def labels(self) -> LabelSpace:
        """The classes of the source, which the model answers in."""
        return label_space(domain(self.source).labels)

    @field_validator("source")
    @classmethod
    def _known_source(cls, name: str) -> str:
        found = _domain(name)
        if "train" not in found.splits:
            raise ValueError(f"{name} has no images to train on")
        return name

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        source, faults = info.data.get("source"), []
        for name in names:
            try:
                target = _domain(name)
                if source is not None:
                    label_space(_domain(source).labels).fold(label_space(target.labels))
            except (ValueError, DataError) as error:
                faults.append(str(error))
        faults += [f"{name} is given twice" for name in sorted({name for name in names if names.count(name) > 1})]
        if faults:
            raise ValueError("; ".join(faults))
        return names

    @field_validator("method", mode="after")
    @classmethod
    def _method_fits(cls, method: Any, info: ValidationInfo) -> Any:
        source, tower = info.data.get("source"), info.data.get("tower")
        classes = 0 if source is None else len(label_space(_domain(source).labels))
        if isinstance(method, Mask2FormerSettings) and method.queries < classes:
            raise ValueError(f"queries {method.queries} should be at least {classes}, one for each class of {source}")
        prior = isinstance(method, TqdmSettings) and method.mask_prior == "score_map"
        if prior and tower is not None and tower.weights != "pretrained":
            raise ValueError(
                f"mask_prior score_map needs a tower that states its temperature, which one with tower.weights "
                f"{tower.weights} does not: set mask_prior to none or tower.weights to pretrained"
            )
        return method

    @field_validator("inference", mode="after")
    @classmethod
    def _large_enough(cls, inference: InferenceSettings) -> InferenceSettings:
        if inference.window is not None and min(inference.window) < SMALLEST_SIDE:
            raise ValueError(f"window {inference.window} should be at least {SMALLEST_SIDE} pixels on both sides")
        if inference.short_edge is not None and inference.short_edge < SMALLEST_SIDE:
            raise ValueError(f"short_edge {inference.short_edge} should be at least {SMALLEST_SIDE} pixels")
        return inference

    @field_validator("data", mode="after")
    @classmethod
    def _known_data(cls, data: Path | dict[str, Path] | None) -> Path | dict[str, Path] | None:
        if isinstance(data, dict):
            for name in data.keys() - {"default"}:
                _domain(name)
        return data


@dataclass(frozen=True)
class Resolved:
    """A recipe, and by dotted key where each value is from: `default`, the preset or file, `command line`."""

    recipe: Recipe
    origins: dict[str, str]

    def values(self) -> dict[str, Any]:
        """Every value of the recipe by dotted key."""
        return _leaves(self.recipe.model_dump(mode="json"))


def resolve(source: str | Path, overrides: Sequence[str] = (), above: Mapping[str, Any] | None = None) -> Resolved:
    """A preset or file with overrides, and further values `above` them. Raises one `RecipeError` with every fault."""
    given = library.read(source)
    over, faults = library.parse_overrides(overrides)
    over = library.merge(over, dict(above or {}))
    recipe = _validate(_combine(given, over), faults)
    origins = {}
    for key in Resolved(recipe, {}).values():
        origins[key] = "command line" if _holds(over, key) else str(source) if _holds(given, key) else "default"
    return Resolved(recipe, origins)


def differences(old: Recipe, new: Recipe, ignore: Iterable[str] = ()) -> list[str]:
    """The dotted keys in which two recipes differ, each with both values; keys under `ignore` are left out."""
    before, after = _leaves(old.model_dump(mode="json")), _leaves(new.model_dump(mode="json"))
    skip = tuple(ignore)
    return [
        f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key) and not any(key == s or key.startswith(f"{s}.") for s in skip)
    ]


def _changed(recipe: Recipe, values: Mapping[str, Any], faults: list[str]) -> Recipe:
    kept = {name: getattr(recipe, name) for name in Recipe.model_fields}
    given = {
        name: value.model_dump() if isinstance(value, BaseModel) and _in_schema(name, value) else value
        for name, value in kept.items()
    }
    return _validate(_combine(given, dict(values)), faults)


def _combine(given: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid over `given`; another `method.name` keeps of the old method's values those the new one knows."""
    old, new = given.get("method"), over.get("method")
    if isinstance(old, BaseModel) and isinstance(new, dict):  # a settings object from outside the package
        over = {**over, "method": type(old).model_validate(library.merge(old.model_dump(), new))}
    elif isinstance(old, dict) and isinstance(new, dict) and new.get("name", old.get("name")) != old.get("name"):
        fields = method_settings().get(str(new["name"]))
        given = {**given, "method": {key: old[key] for key in old if fields and key in fields.model_fields}}
    return library.merge(given, over)


def _validate(values: dict[str, Any], faults: list[str]) -> Recipe:
    faults = [*faults, *truth_for_number(values, Recipe)]
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        faults += explain(error, values, Recipe)
    else:
        if not faults:
            return recipe
    title = f"recipe {values.get('name', '')}".strip()
    if len(faults) == 1:
        raise RecipeError(f"{title}: {faults[0]}")
    raise RecipeError("\n".join([f"{title} has {len(faults)} faults:", *(f"  {fault}" for fault in faults)]))


def _in_schema(name: str, value: BaseModel) -> bool:
    return name != "method" or type(value) in method_settings().values()


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        leaves |= _leaves(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return leaves


def _holds(values: Any, key: str) -> bool:
    """Whether nested values give the dotted key."""
    for part in key.split("."):
        if not isinstance(values, Mapping):
            return values is not None
        if part not in values:
            return False
        values = values[part]
    return True


def _domain(name: str) -> Domain:
    try:
        return domain(name)
    except DataError as error:
        raise ValueError(str(error)) from None

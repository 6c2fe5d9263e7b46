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
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)

from dgss.data.domains import domain
from dgss.data.transforms import TransformSettings
from dgss.errors import DataError, RecipeError
from dgss.inference.windows import InferenceSettings
from dgss.interfaces import Method
from dgss.labels import LabelSpace, label_space
from dgss.methods import MethodSettings
from dgss.recipes import library
from dgss.recipes.faults import explain, members, split_lists, too_small, truth_for_number
from dgss.towers.base import Normalize
from dgss.towers.clip import OpenClipSettings
from dgss.towers.shipped import MiniSettings
from dgss.training.loop import LoopSettings

SMALLEST_SIDE = 32
"""The coarsest stride of the levels; what the patches of a tower need is known when it is built."""

Side = Annotated[int, Field(ge=SMALLEST_SIDE, le=8192)]
Size = tuple[Side, Side]
"""(H, W) in pixels."""
DrawnSide = Annotated[int, Field(ge=32, le=2048)]  # the buffers of larger pictures take gigabytes


def _tower_kind(settings: Any) -> Any:
    """A recipe whose tower gives no name means the pair that lies in the package."""
    return settings.get("name", "mini") if isinstance(settings, Mapping) else getattr(settings, "name", None)


TowerSettings = Annotated[
    Annotated[MiniSettings, Tag("mini")] | Annotated[OpenClipSettings, Tag("open_clip")], Discriminator(_tower_kind)
]


class DrawnSettings(BaseModel):
    """How many drawn streets are made, and how large: of the source to train on, of every domain to score on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_images: int = Field(default=300, ge=1, le=5000)
    score_images: int = Field(default=24, ge=1, le=5000)
    size: tuple[DrawnSide, DrawnSide] = (128, 256)


class Expected(BaseModel):
    """What the recipe gave when it was last run: mIoU in percent, the command and the machine. For readers alone."""

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

    name: str = Field(
        pattern=r"^\w([\w.-]{0,58}\w)?$",
        description="at most 60 letters, digits and _, with . and - between them: it names the run's folder",
    )
    summary: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    source: str
    targets: tuple[str, ...] = Field(default=(), description="[domain, ...], and [] for none")
    data: Path | dict[str, Path] | None = Field(default=None, description="a folder, {domain: folder, ...} or null")
    drawn: DrawnSettings = DrawnSettings()
    tower: TowerSettings = MiniSettings()
    size: Size = Field(description="[height, width] in pixels, as in [96, 192]")
    normalize: Normalize | None = None
    method: Annotated[SerializeAsAny[MethodSettings], WrapValidator(_keep_objects)]
    augment: TransformSettings = TransformSettings()
    training: LoopSettings = Field(default=LoopSettings(), validate_default=True)
    inference: InferenceSettings = InferenceSettings()
    expected: Expected | None = None

    @classmethod
    def load(cls, source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """A preset by its name or a file by its path, with overrides like `training.steps=200` or `size=96,192`.

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
            values["method"] = _own_method(type(like.method), values.get("method"), source)
        return _validate(values, [], source)

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

    @field_serializer("tower", "method", mode="wrap")
    def _name_first(self, group: Any, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(group)
        return {key: values[key] for key in sorted(values, key=lambda key: key != "name")}

    def build(self, trained: bool = False) -> Method:
        """The model. trained: only its shape is wanted; weights will be loaded and no loss computed."""
        towers = self.tower.build(self.normalize, weights=not trained, seed=self.seed)
        look, patch = self.inference, getattr(towers.image, "patch", 0)
        sides = {"size": self.size, "inference.window": look.window, "inference.short_edge": look.short_edge}
        if patch and (small := too_small(sides, 2 * patch, "two patches of the tower; or take one of smaller patches")):
            raise _refusal(self.name, small)
        generator = torch.Generator().manual_seed(self.seed)
        method: Method = self.method.build(towers, self.labels, generator, teacher=not trained)
        return method

    @property
    def labels(self) -> LabelSpace:
        """The classes of the source, which the model answers in."""
        return label_space(domain(self.source).labels)

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, values: Any, handler: ModelWrapValidatorHandler[Recipe], info: ValidationInfo) -> Recipe:
        """However a recipe is made, one `RecipeError` names every fault; `_validate` gives a title and earlier ones."""
        context = info.context or {}
        faults = [*context.get("faults", ()), *truth_for_number(values, cls)]
        try:
            recipe = handler(split_lists(values, cls))
        except ValidationError as error:
            # the one default that can be wrong is told by its key, too
            faults += explain(error, {"training": {}, **values} if isinstance(values, Mapping) else values, cls)
        if faults:
            raise _refusal(context.get("title", "made in Python"), faults)
        return recipe

    @field_validator("source")
    @classmethod
    def _known_source(cls, name: str) -> str:
        _refuse(_domain_faults([name]))
        _refuse([] if "train" in domain(name).splits else [f"{name} has no images to train on"])
        return name

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        twice = [f"{name} is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]
        _refuse(_domain_faults(names, info.data.get("source")) + twice)
        return names

    @field_validator("data")
    @classmethod
    def _known_data(cls, data: Path | dict[str, Path] | None) -> Path | dict[str, Path] | None:
        _refuse(_domain_faults(name for name in (data if isinstance(data, dict) else ()) if name != "default"))
        return data

    @field_validator("method")
    @classmethod
    def _method_fits(cls, method: Any, info: ValidationInfo) -> Any:
        if "source" in info.data and "tower" in info.data:
            _refuse(_misfits(method, info.data["tower"], label_space(domain(info.data["source"]).labels)))
        return method

    @field_validator("training")
    @classmethod
    def _something_to_train(cls, training: LoopSettings, info: ValidationInfo) -> LoopSettings:
        method = info.data.get("method")
        if training.steps and not getattr(method, "trains", True):  # most methods do without the word
            _refuse([f"steps = {training.steps}: {getattr(method, 'name', 'it')} has nothing to train; set it to 0"])
        return training

    @field_validator("inference")
    @classmethod
    def _large_enough(cls, inference: InferenceSettings) -> InferenceSettings:
        _refuse(too_small(inference.model_dump(include={"window", "short_edge"}), SMALLEST_SIDE, "the coarsest stride"))
        return inference


def _refuse(faults: Sequence[str]) -> None:
    """For validators: all that was found, one a line. A fault of a field within a group begins with the field."""
    if faults:
        raise ValueError("\n".join(faults))


def _domain_faults(names: Iterable[str], source: str | None = None) -> list[str]:
    """Which names are no domains, or have labels in which the classes of `source` cannot be read."""
    faults: dict[str, list[str]] = {}
    for name in names:
        try:
            labels = label_space(domain(name).labels)
            if source is not None:
                label_space(domain(source).labels).fold(labels)
        except DataError as error:
            faults.setdefault(str(error), []).append(name)
    return [reason if repr(at[0]) in reason else f"{', '.join(at)}: {reason}" for reason, at in faults.items()]


def _misfits(method: Any, tower: TowerSettings, classes: LabelSpace) -> list[str]:
    """What in a method's settings goes neither with the tower nor with the classes; the key to blame comes first."""
    # a method from outside the package may do without
    return method.misfits(tower.outline, classes) if hasattr(method, "misfits") else []


@dataclass(frozen=True)
class Resolved:
    """A recipe, and by dotted key where each value is from: `default`, a preset or file, `command line`."""

    recipe: Recipe
    origins: dict[str, str]

    def values(self) -> dict[str, Any]:
        """Every value of the recipe by dotted key."""
        return library.leaves(self.recipe.model_dump(mode="json"))


def resolve(source: str | Path, overrides: Sequence[str] = (), above: Mapping[str, Any] | None = None) -> Resolved:
    """A preset or file with overrides, and further values `above` them. Raises one `RecipeError` with every fault."""
    layers = library.layers(source)
    over, faults = library.parse_overrides(overrides)
    over = library.merge(over, dict(above or {}))
    recipe = _validate(_combine(library.flat(layers), over), faults, str(source))
    layers.append(library.Layer("command line", over))
    keys = Resolved(recipe, {}).values()
    givers = {key: [str(layer.source) for layer in layers if library.holds(layer.values, key)] for key in keys}
    return Resolved(recipe, {key: found[-1] if found else "default" for key, found in givers.items()})


def differences(old: Recipe, new: Recipe, ignore: Iterable[str] = ()) -> list[str]:
    """The dotted keys in which two recipes differ, each with both values; keys under `ignore` are left out."""
    before, after = library.leaves(old.model_dump(mode="json")), library.leaves(new.model_dump(mode="json"))
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
    return _validate(_combine(given, dict(values)), faults, recipe.name)


def _combine(given: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid over `given`; a method of another name keeps what it knows of the old values, a tower nothing."""
    old, new = given.get("method"), over.get("method")
    if isinstance(old, BaseModel) and isinstance(new, dict):  # a settings object from outside the package
        over = {**over, "method": _own_method(type(old), library.merge(old.model_dump(), new), str(given["name"]))}
    elif isinstance(old, dict) and isinstance(new, dict) and new.get("name", old.get("name")) != old.get("name"):
        fields = members(Recipe.model_fields["method"]).get(str(new["name"]))
        given = {**given, "method": {key: old[key] for key in old if fields and key in fields.model_fields}}
    old, new = given.get("tower"), over.get("tower")
    if isinstance(old, dict) and isinstance(new, dict) and new.get("name", _tower_kind(old)) != _tower_kind(old):
        given = {**given, "tower": {}}
    return library.merge(given, over)


def _own_method(kind: type[BaseModel], values: Any, title: str) -> Any:
    """Settings of a class from outside the package."""
    own = create_model("Own", method=(kind, ...))
    try:
        return own.model_validate({"method": values}).method  # type: ignore[attr-defined]
    except ValidationError as error:
        raise _refusal(title, explain(error, {"method": values}, own)) from error


def _validate(values: dict[str, Any], faults: list[str], title: str) -> Recipe:
    return Recipe.model_validate(values, context={"faults": faults, "title": title})


def _refusal(title: str, faults: Sequence[str]) -> RecipeError:
    if len(faults) == 1:
        return RecipeError(f"recipe {title}: {faults[0]}")
    return RecipeError("\n".join([f"recipe {title} has {len(faults)} faults:", *(f"  {fault}" for fault in faults)]))


def _in_schema(name: str, value: BaseModel) -> bool:
    return name != "method" or type(value) in members(Recipe.model_fields["method"]).values()

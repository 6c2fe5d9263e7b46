"""Loading a trained model: of a run, or of a checkpoint that others published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgss.api.datasets import as_path
from dgss.data.dataset import read_image
from dgss.errors import WeightsError, nearest
from dgss.files import RunFolder, path_errors
from dgss.inference.predictor import Model
from dgss.interfaces import Method
from dgss.recipes.schema import Recipe
from dgss.towers.published import few, find_weights, read_tensors
from dgss.training.devices import choose_device, memory_errors
from dgss.training.progress import Progress
from dgss.weights.reference import Filling, fill, recognise
from dgss.weights.store import load_strictly, read_weights


@dataclass(frozen=True)
class Reading:
    """How a published checkpoint was read.

    recipe: by which it was taken to be trained. filling: what became of its tensors. others: recipes whose checkpoints
    have the same names, where none was named.
    """

    recipe: Recipe
    filling: Filling
    others: tuple[str, ...] = ()

    def table(self) -> str:
        """The report for people."""
        filling = self.filling
        renamed = [f"{theirs} -> {ours}" for theirs, ours in filling.used.items() if theirs != ours]
        lines = [f"{len(filling.used)} tensors used"]
        lines += [f"{len(renamed)} of them renamed: {few(renamed, 3)}"]
        lines += [f"{len(filling.reshaped)} of them stored in another shape: {few(filling.reshaped)}"]
        lines += [f"{len(names)} ignored, {reason}: {few(names)}" for reason, names in filling.ignored.items()]
        lines += [f"{len(filling.absent)} not filled by the file, random now: {few([*filling.absent.values()])}"]
        shown = [line for line in lines if not line.startswith("0 ")]
        shown += [
            f"taken for {self.recipe.name}; it may be of {name}, then convert it with --recipe {name}"
            for name in self.others
        ]
        return "\n".join(shown)


class TrainedModel(Model):
    """A model with the recipe it was trained by. reading: how it was read, of a published checkpoint alone."""

    def __init__(self, method: Method, recipe: Recipe, device: torch.device, reading: Reading | None = None) -> None:
        super().__init__(method, read_image, recipe.inference, device)
        self.recipe = recipe
        self.reading = reading


def load_model(path: str | Path, device: str = "auto", recipe: Recipe | None = None) -> TrainedModel:
    """A trained model, ready to answer.

    path: the folder of a run, its file `model.safetensors`, or a checkpoint that others published; a file may be named
    as `hf:owner/repo/file`. Nothing in it is executed. recipe: the one it was trained by; needed where its method comes
    from outside the package; None for a published checkpoint: the usual one of files with such names. Raises
    `WeightsError` where no whole weights of such a model are there.
    """
    place = as_path(path, "the run")
    with path_errors(place):
        name = place.as_posix()
        file = find_weights(name) if name.startswith("hf:") else _weights(place)
        ours = _is_ours(file)
    target = choose_device(device)
    with memory_errors("load the model on another device, or on a machine with more memory"):
        if not ours:
            method, reading = read_published(file, recipe)
            return TrainedModel(method, reading.recipe, target, reading)
        stored = read_weights(file)
        _check_numbers(stored.tensors, file, "its training went astray; train again with a lower training.optimizer.lr")
        own = Recipe.parse(stored.recipe, str(file), like=recipe)
        method = own.build(trained=True)
        load_strictly(method, stored.tensors, str(file))
        return TrainedModel(method, own, target)


def opened(model: Model | str | Path, device: str, progress: Progress) -> Model:
    """A model as it is, or the one that a path names; how a published checkpoint was read is told."""
    if isinstance(model, Model):
        return model
    loaded = load_model(model, device)
    if loaded.reading is not None:
        progress.say(loaded.reading.table())
    return loaded


def read_published(file: Path, recipe: Recipe | None = None, strict: bool = True) -> tuple[Method, Reading]:
    """The model of a published checkpoint, on the CPU. recipe: None the usual one of files with such names.

    strict: False takes what fits and leaves the rest random. Raises `WeightsError` where a tensor is missing, too many
    or of another shape.
    """
    theirs = read_tensors(file)
    kind = recognise(theirs, str(file))
    if recipe is None:
        kind.check_size(theirs, str(file))
    chosen = recipe or Recipe.load(kind.recipes[0])
    method = chosen.build(trained=True)
    try:
        filling = fill(method, theirs, kind.keys, f"{file} does not fit the recipe {chosen.name}", strict)
    except WeightsError as error:
        raise WeightsError(f"{error}; `dgss convert --partial` takes what fits") from error
    _check_numbers(method.state_dict(), file, "download it again")
    others = tuple(name for name in kind.recipes if recipe is None and name != chosen.name)
    return method, Reading(chosen, filling, others)


def _is_ours(file: Path) -> bool:
    """Whether this package wrote a file, whatever it is called; one that is damaged is judged by its name."""
    try:
        with safe_open(file, framework="pt") as stored:
            return "dgss" in (stored.metadata() or {})
    except SafetensorError:
        return file.suffix == ".safetensors"


def _weights(place: Path) -> Path:
    """The file of weights at a place that may be a run's folder."""
    run = RunFolder(place)
    file = place if place.is_file() else run.weights
    if file.is_file():
        return file
    if run.recipe.is_file():
        raise WeightsError(f"the training in {place} has not ended; {run.how_to_go_on()}")
    for above, where in ((place, "in"), (place.parent, "beside")):
        runs = [str(found.parent) for found in above.glob(f"*/{run.weights.name}")]
        if runs:
            hint = nearest(str(place), runs, f"runs {where} it")
            break
    else:
        hint = "`dgss train --out DIR` makes a run"
    raise WeightsError(f"{place} is no run and no file of weights; {hint}")


def _check_numbers(tensors: Mapping[str, Tensor], file: Path, advice: str) -> None:
    broken = [name for name, values in tensors.items() if not values.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{file} holds values that are no numbers in {len(broken)} of {len(tensors)} tensors, first {broken[0]}: "
            f"{advice}"
        )

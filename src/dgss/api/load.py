"""Loading a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dgss.api.datasets import as_path
from dgss.data.dataset import read_image
from dgss.errors import WeightsError, nearest
from dgss.files import RunFolder, path_errors
from dgss.inference.predictor import Model
from dgss.interfaces import Method
from dgss.recipes.schema import Recipe
from dgss.training.devices import choose_device, memory_errors
from dgss.weights.store import load_strictly, read_weights


class TrainedModel(Model):
    """A model with the recipe it was trained by."""

    def __init__(self, method: Method, recipe: Recipe, device: torch.device) -> None:
        super().__init__(method, read_image, recipe.inference, device)
        self.recipe = recipe


def load_model(path: str | Path, device: str = "auto", recipe: Recipe | None = None) -> TrainedModel:
    """A trained model, ready to answer: from the folder of a run or its file `model.safetensors`.

    recipe: the one it was trained by; needed where its method comes from outside the package.
    Raises `WeightsError` where no whole weights of such a model are there.
    """
    place = as_path(path, "the run")
    with path_errors(place):
        file = _weights(place)
    target = choose_device(device)
    with memory_errors("load the model on another device, or on a machine with more memory"):
        stored = read_weights(file)
        _check_numbers(stored.tensors, file)
        own = Recipe.parse(stored.recipe, str(file), like=recipe)
        method = own.build(trained=True)
        load_strictly(method, stored.tensors, str(file))
        return TrainedModel(method, own, target)


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


def _check_numbers(tensors: Mapping[str, Tensor], file: Path) -> None:
    broken = [name for name, values in tensors.items() if not values.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{file} holds values that are no numbers in {len(broken)} of {len(tensors)} tensors, first {broken[0]}: "
            f"its training went astray; train again with a lower training.optimizer.lr"
        )

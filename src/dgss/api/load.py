"""Loading a trained model."""

from __future__ import annotations

from pathlib import Path

import torch

from dgss.data.dataset import read_image
from dgss.errors import WeightsError
from dgss.files import RunFolder
from dgss.inference.predictor import Model
from dgss.interfaces import Method
from dgss.recipes.schema import Recipe
from dgss.training.devices import choose_device
from dgss.training.loop import how_to_go_on
from dgss.weights.store import load_strictly, read_weights


class TrainedModel(Model):
    """A model with the recipe it was trained by."""

    def __init__(self, method: Method, recipe: Recipe, device: torch.device) -> None:
        super().__init__(method, read_image, recipe.inference, device)
        self.recipe = recipe


def load_model(path: str | Path, device: str = "auto", recipe: Recipe | None = None) -> TrainedModel:
    """A trained model, ready to answer: from the folder of a run or its file `model.safetensors`.

    recipe: the one it was trained by; needed where its method comes from outside the package.
    """
    place = Path(path).expanduser()
    file = RunFolder(place).weights if place.is_dir() else place
    if place.is_dir() and not file.exists() and RunFolder(place).recipe.exists():
        raise WeightsError(f"the training in {place} has not ended; {how_to_go_on(RunFolder(place))}")
    target = choose_device(device)
    stored = read_weights(file)
    own = Recipe.parse(stored.recipe, str(file), like=recipe)
    method = own.build(trained=True)
    load_strictly(method, stored.tensors, str(file))
    return TrainedModel(method, own, target)

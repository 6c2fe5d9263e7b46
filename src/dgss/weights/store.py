"""The file of a trained model: one safetensors file that holds every tensor, the recipe and a hash of the content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dgss.errors import WeightsError
from dgss.files import write_tensors
from dgss.towers.published import check_fit

FORMAT = "dgss 1"


@dataclass(frozen=True)
class Stored:
    """What a file of weights holds. recipe: YAML. tensors: by full name, on the CPU. step: after how many steps."""

    recipe: str
    tensors: dict[str, Tensor]
    step: int


def save_weights(path: Path, tensors: dict[str, Tensor], recipe: str, step: int) -> None:
    """Writes tensors and recipe (YAML) to one file, atomically."""
    # copies: safetensors refuses tensors that share memory
    copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    description = {"format": FORMAT, "recipe": recipe, "step": str(step), "sha256": _digest(copies, recipe)}
    write_tensors(path, copies, json.dumps(description))


def read_weights(path: Path) -> Stored:
    """Reads what `save_weights` wrote and checks the hash. Raises `WeightsError`."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} is no run and no file of weights; `dgss train --out DIR` makes a run")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            description = _parse((file.metadata() or {}).get("dgss", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file ({error}); copy or train it again") from error
    if description.get("format") != FORMAT:
        found = description.get("format", "no format")
        raise WeightsError(f"{path} was not written by this version of dgss (it says {found!r}, not {FORMAT!r})")
    if description.get("sha256") != _digest(tensors, description.get("recipe", "")):
        raise WeightsError(f"{path} is damaged (its SHA-256 differs); copy or train it again")
    return Stored(description["recipe"], tensors, int(description.get("step", "0")))


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Fills `module`; every name and shape must fit. Raises `WeightsError` that names what does not."""
    check_fit(module.state_dict(), tensors, f"{source} does not fit the model of its recipe")
    module.load_state_dict(tensors)


def _parse(text: str) -> dict[str, str]:
    """What stands beside the tensors; nothing where another program wrote it."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return {key: str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _digest(tensors: dict[str, Tensor], recipe: str) -> str:
    """SHA-256 over the recipe and, in the order of names, name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(recipe.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

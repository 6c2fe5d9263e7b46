"""Checkpoints: everything a training needs to go on as if it had never stopped.

A checkpoint is a pair of files: `STEP.safetensors` holds every tensor (weights, buffers, optimizer state), `STEP.json`
the rest and the hash of the former. The JSON is written last, so a pair is whole or does not count. Random states are
not in it: all that is drawn in a step follows from (seed, step) or (seed, sample number).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dgss.errors import WeightsError
from dgss.files import sha256, write_tensors, write_text

KEEP = 2
"""How many checkpoints stay: where the newest is damaged, the one before it serves."""


@dataclass(frozen=True)
class Position:
    """Where a training stands: `step` steps are done, which took `seconds`, pauses left out.

    threads: of the CPU, that the steps were made with; None unknown.
    """

    step: int = 0
    seconds: float = 0.0
    threads: int | None = None


def save_checkpoint(folder: Path, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Writes the checkpoint of `position` atomically, removes the oldest, answers the path of its JSON."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    names = _parameter_names(optimizer)
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{names[index]}/{key}": value for key, value in state.items()}
    path = folder / f"{position.step:06d}.safetensors"
    # copies: safetensors refuses tensors that share memory
    copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
    write_tensors(path, copies)
    record = {"format": 1, **asdict(position), "sha256": sha256(path)}
    write_text(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    for old in _records(folder)[KEEP:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return path.with_suffix(".json")


def restore_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
) -> Position:
    """Fills model and optimizer from the newest whole checkpoint and answers where it stands; none: the start.

    A damaged one is named through `warn` and the one before it taken. Raises `WeightsError` where all are damaged.
    """
    faults = []
    for record in _records(folder):
        try:
            position, tensors = _read(record)
            _fill(model, optimizer, tensors)
        except WeightsError as error:
            faults.append(str(error))
            warn(f"{error}; trying the checkpoint before it")
        else:
            return position
    if faults:
        raise WeightsError(f"no checkpoint in {folder} can be used ({faults[0]}); train anew with another --out")
    return Position()


def _records(folder: Path) -> list[Path]:
    """The JSON files of a folder's checkpoints, newest first."""
    found = [path for path in folder.glob("*.json") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def _read(record: Path) -> tuple[Position, dict[str, Tensor]]:
    path = record.with_suffix(".safetensors")
    try:
        values: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        threads = values.get("threads")
        position = Position(int(values["step"]), float(values["seconds"]), threads and int(threads))
        if sha256(path) != values["sha256"]:
            raise WeightsError(f"checkpoint {path} is damaged (its SHA-256 differs)")
        return position, load_file(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise WeightsError(f"checkpoint {record} cannot be read ({error})") from error


def _fill(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    places = {name: index for index, name in enumerate(_parameter_names(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    try:
        model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model/")})
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                name, entry = key.removeprefix("optimizer/").rsplit("/", 1)
                state.setdefault(places[name], {})[entry] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(f"the checkpoint belongs to another model ({' '.join(str(error).split())})") from error


def _parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Full names in the optimizer's own order (see `build_optimizer`)."""
    return [name for group in optimizer.param_groups for name in group["parameter_names"]]

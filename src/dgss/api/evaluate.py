"""Scoring a model on domains it never saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dgss.api.datasets import DEFAULT, Data, as_path, as_roots
from dgss.api.load import TrainedModel, opened
from dgss.data.domains import domain
from dgss.errors import DataError
from dgss.evaluation.evaluate import DomainResult, evaluate_domain
from dgss.evaluation.protocols import Protocol
from dgss.evaluation.protocols import protocol as protocol_of
from dgss.evaluation.report import Report
from dgss.files import RunFolder, path_errors
from dgss.inference.predictor import Model
from dgss.recipes.schema import DrawnSettings, Recipe
from dgss.training.devices import memory_errors
from dgss.training.progress import Progress

_ADVICE = "set inference.window, or score on another device"


def evaluate(
    model: Model | str | Path,
    targets: str | Iterable[str] | None = None,
    data: str | Path | Mapping[str, str | Path] | None = None,
    protocol: str = "drawn",
    device: str = "auto",
    progress: Progress | None = None,
) -> Report:
    """Scores a model, or what `load_model` takes, on the domains `targets`.

    targets: None its own source and the targets of its recipe. data: one folder for all, or one per domain; None as
    the run in that folder was trained with; a loaded model does not know them. protocol: at which size and on which
    pixels. A target that is the model's own source is reported as the source. Raises `DataError` where a domain is
    unknown or its data are not there.
    """
    progress, rule = progress or Progress(), protocol_of(protocol)
    names = _known(targets)
    roots = as_roots(data) if data is not None else {} if isinstance(model, Model) else _trained_on(model)
    loaded = opened(model, device, progress)
    recipe = loaded.recipe if isinstance(loaded, TrainedModel) else None
    if names is None and recipe is not None:
        names = list(dict.fromkeys([recipe.source, *recipe.targets]))
    if not names:
        raise DataError("no domain is named to score on; name one or more as targets")
    drawn = recipe.drawn if recipe else DrawnSettings()
    sets = Data(roots, drawn.size, progress)
    for name in names:
        sets.check_scored(name, loaded.labels, rule)
    results = score(loaded, names, sets, rule, drawn.score_images, progress)
    source = results.pop(recipe.source, None) if recipe else None
    return Report(
        results,
        protocol,
        source,
        recipe.source if recipe else None,
        recipe.name if recipe else "",
        recipe.seed if recipe else None,
    )


def _known(targets: str | Iterable[str] | None) -> list[str] | None:
    """The names of domains that a user gives, each once."""
    if targets is None:
        return None
    if not isinstance(targets, Iterable):
        raise DataError(f"targets is {targets!r}; it should be the names of domains")
    return [domain(name).name for name in dict.fromkeys([targets] if isinstance(targets, str) else targets)]


def _trained_on(model: str | Path) -> dict[str, Path]:
    """The folders of data that a run was trained with; they matter only where they are read."""
    file = RunFolder(as_path(model, "the run")).recipe
    with path_errors(file):
        data = Recipe.load(file).data if file.is_file() else None
        folders = data if isinstance(data, dict) else {DEFAULT: data} if data else {}
        return {name: as_path(folder, "data").absolute() for name, folder in folders.items()}


def score(
    model: Model, names: Sequence[str], sets: Data, rule: Protocol, drawn_images: int, progress: Progress
) -> dict[str, DomainResult]:
    """Results by domain. drawn_images: of each domain that is drawn."""

    def one(name: str) -> DomainResult:
        dataset = sets.open(name, rule.view(name).split, drawn_images, memory=0)  # each image is looked at once
        with memory_errors(_ADVICE), progress.bar(f"scoring {name},") as advance:
            return evaluate_domain(model, dataset, rule, on_image=lambda done, total: advance(done, total, ""))

    return {name: one(name) for name in names}

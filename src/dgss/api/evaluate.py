"""Scoring a model on domains it never saw."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dgss.api.datasets import Data, as_roots
from dgss.api.load import TrainedModel, load_model
from dgss.data.domains import domain
from dgss.errors import DataError
from dgss.evaluation.evaluate import DomainResult, evaluate_domain
from dgss.evaluation.protocols import Protocol
from dgss.evaluation.protocols import protocol as protocol_of
from dgss.evaluation.report import Report
from dgss.files import RunFolder, path_errors
from dgss.inference.predictor import Model
from dgss.recipes.schema import DrawnSettings, Recipe
from dgss.training.progress import Progress


def evaluate(
    model: Model | str | Path,
    targets: str | Sequence[str] | None = None,
    data: str | Path | Mapping[str, str | Path] | None = None,
    protocol: str = "drawn",
    device: str = "auto",
    progress: Progress | None = None,
) -> Report:
    """Scores a model, or a run by its folder, on the domains `targets`.

    targets: None its own source and the targets of its recipe. data: one folder for all, or one per domain; None as
    the run was trained with. protocol: at which size and on which pixels. A target that is the model's own source is
    reported as the source.
    """
    progress, rule = progress or Progress(), protocol_of(protocol)
    wanted = [targets] if isinstance(targets, str) else targets
    for name in wanted or ():
        domain(name)
    if data is None and not isinstance(model, Model) and RunFolder(Path(model)).recipe.is_file():
        data = Recipe.load(RunFolder(Path(model)).recipe).data
    loaded = model if isinstance(model, Model) else load_model(model, device)
    recipe = loaded.recipe if isinstance(loaded, TrainedModel) else None
    names = list(dict.fromkeys(wanted if wanted is not None else [recipe.source, *recipe.targets] if recipe else []))
    drawn = recipe.drawn if recipe else DrawnSettings()
    sets = Data(as_roots(data), drawn.size, progress)
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


def check_file(path: Path) -> None:
    """Raises where a result may not be written to `path`, before time is spent on it."""
    if path.suffix not in (".json", ".html"):
        raise DataError(f"{path}: the result is written as .json (numbers) or .html (a page); name such a file")
    with path_errors(path):
        if path.exists():
            raise DataError(f"{path} exists; name another file, nothing is overwritten")
        above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise DataError(f"cannot write {path}: {above} is no folder that you may write in; name another file")


def score(
    model: Model, names: Sequence[str], sets: Data, rule: Protocol, drawn_images: int, progress: Progress
) -> dict[str, DomainResult]:
    """Results by domain. drawn_images: of each domain that is drawn."""

    def one(name: str) -> DomainResult:
        dataset = sets.open(name, rule.view(name).split, drawn_images, memory=0)  # each image is looked at once
        with progress.bar(f"scoring {name},") as advance:
            return evaluate_domain(model, dataset, rule, on_image=lambda done, total: advance(done, total, ""))

    return {name: one(name) for name in names}

"""Training from end to end: recipe, data, model, training, scores, report."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dgss.api.datasets import Data, as_roots
from dgss.api.evaluate import score
from dgss.api.load import TrainedModel
from dgss.data.dataset import Dataset
from dgss.data.loader import Loader
from dgss.errors import DataError, RecipeError
from dgss.evaluation.panels import save_panels
from dgss.evaluation.protocols import protocol
from dgss.evaluation.report import Report, write_html
from dgss.files import FolderLock, RunFolder, atomic_path, write_text
from dgss.interfaces import Method
from dgss.recipes.library import DEFAULT_RECIPE
from dgss.recipes.schema import Recipe, differences
from dgss.training.devices import choose_device, peak_memory
from dgss.training.loggers import MetricsFile
from dgss.training.loop import StepReport, Stopped, fit, how_to_go_on
from dgss.training.progress import Progress
from dgss.weights.store import save_weights

RULE = protocol("drawn")

# what changes no number of a run, and what changes the scores alone; all else must stay when a training goes on
_NO_NUMBER = (
    "summary",
    "data",
    "expected",
    "training.workers",
    "training.checkpoint_every",
    "training.log_every",
)
_SCORES_ONLY = ("targets", "inference", "drawn.score_images")


@dataclass(frozen=True)
class Run:
    """A finished training.

    history: rows of metrics.jsonl. report: None where the run had been finished before. scores: report.json.
    """

    path: Path
    recipe: Recipe
    history: list[dict[str, Any]]
    report: Report | None
    scores: dict[str, Any]


def train(
    recipe: Recipe | str | Path | None = None,
    data: str | Path | Mapping[str, str | Path] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_step: Callable[[StepReport], None] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Trains by a recipe, scores the source's validation images and all targets, writes the report.

    recipe: a `Recipe`, a name or a file; None the one in `out` when resuming, else `tqdm-mini-streets`. data: one
    folder for all domains or one per domain; drawn streets need none. out: the run's folder, by default
    `runs/NAME-OF-RECIPE`. resume: go on where a run in `out` stopped; a finished one is answered as it is.
    on_step: called after every step.
    """
    progress = progress or Progress()
    recipe = _settle(recipe, data, out if resume else None)
    folder = RunFolder(Path("runs", recipe.name) if out is None else Path(out))
    other_scores = _check_folder(folder, recipe, resume)
    where = choose_device(device)
    sets = Data(as_roots(recipe.data), recipe.drawn.size, progress)
    names = [recipe.source, *(name for name in recipe.targets if name != recipe.source)]
    sets.check_trained(recipe.source)
    for name in names:
        sets.check_scored(name, recipe.labels, RULE)
    done = folder.finished and not other_scores
    method = None if done else recipe.build()  # before anything is written: what does not fit together ends here
    with FolderLock(folder.path), _stopping_politely(folder):
        if other_scores:
            folder.scores.unlink(missing_ok=True)
        write_text(folder.recipe, recipe.dump())
        if method is None:
            progress.say(f"{folder.path} is finished already")
            return Run(folder.path, recipe, MetricsFile(folder.metrics).rows(), None, _read_scores(folder.scores))
        _preview(sets.open(recipe.source, "train", min(4, recipe.drawn.train_images), workers=0), folder.preview)
        images = sets.open(recipe.source, "train", recipe.drawn.train_images)
        model, earlier = _fit(recipe, method, images, folder, where, progress, on_step)
        report = _score(model, names, sets, earlier, progress)
        return _finish(folder, recipe, report)


def _settle(
    recipe: Recipe | str | Path | None, data: str | Path | Mapping[str, str | Path] | None, resumed: str | Path | None
) -> Recipe:
    if recipe is None:
        earlier = RunFolder(Path(resumed)).recipe if resumed is not None else None
        recipe = earlier if earlier is not None and earlier.is_file() else DEFAULT_RECIPE
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    return recipe if data is None else recipe.change(data=as_roots(data))


def _check_folder(folder: RunFolder, recipe: Recipe, resume: bool) -> bool:
    """Raises where `recipe` may not be trained in the folder. Answers whether scores in it are of other settings."""
    if not folder.begun(resume):
        return False
    if not folder.weights.exists() and not any(folder.checkpoints.glob("*.json")):
        return False  # nothing was trained yet, so the recipe may be mended
    earlier = Recipe.parse(_read(folder.recipe), str(folder.recipe), like=recipe)
    changes = differences(earlier, recipe, _NO_NUMBER + _SCORES_ONLY)
    if changes:
        raise RecipeError(
            f"{folder.path} holds another training ({'; '.join(changes[:4])}{' ...' if changes[4:] else ''}); "
            f"resume it without these changes, or name another folder with --out"
        )
    return bool(differences(earlier, recipe, _NO_NUMBER))


def _fit(
    recipe: Recipe,
    method: Method,
    images: Dataset,
    folder: RunFolder,
    device: torch.device,
    progress: Progress,
    on_step: Callable[[StepReport], None] | None,
) -> tuple[TrainedModel, float]:
    """The trained model, written to the folder, and the seconds of training before this process began."""
    settings = recipe.training
    loader = Loader(images, recipe.augment, recipe.size, recipe.seed, settings.batch_size, settings.workers)
    progress.say(f"training {recipe.name} for {settings.steps} steps on {device}")
    begin = time.monotonic()
    position = fit(method, loader, settings, folder, recipe.seed, device, progress, on_step)
    earlier = position.seconds - (time.monotonic() - begin)
    save_weights(folder.weights, method.state_dict(), recipe.change(data=None).dump(), position.step)
    return TrainedModel(method, recipe, device), max(earlier, 0.0)


def _score(model: TrainedModel, names: list[str], sets: Data, earlier: float, progress: Progress) -> Report:
    recipe = model.recipe
    results = score(model, names, sets, RULE, recipe.drawn.score_images, progress)
    return Report(
        source=results.pop(recipe.source),
        targets=results,
        protocol=RULE.name,
        source_name=recipe.source,
        name=recipe.name,
        seed=recipe.seed,
        seconds=round(earlier + time.monotonic() - progress.begin, 1),
        peak_gb=round(peak_memory(), 3),
    )


def _finish(folder: RunFolder, recipe: Recipe, report: Report) -> Run:
    """Pictures, page and numbers; the numbers last, since they say that all is there."""
    history = MetricsFile(folder.metrics).rows()
    for result in report.results:
        save_panels(folder.predictions / f"{result.name}.png", result.panels)
    write_html(folder.page, report, history)
    report.save(folder.scores)
    return Run(folder.path, recipe, history, report, report.to_json())


@contextmanager
def _stopping_politely(folder: RunFolder) -> Iterator[None]:
    """Ctrl-C before and after the steps of training: says how to go on, as the loop does by itself."""
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(f"stopped; {how_to_go_on(folder)}", signal.SIGINT) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); name another folder with --out") from error


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(scores, dict):
            raise ValueError("it should hold names and numbers")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it and train with --resume") from error
    return scores


def _preview(dataset: Dataset, path: Path) -> None:
    """The first pictures of the source beside their labels: something to look at within seconds."""
    rows = []
    for index in range(min(4, len(dataset))):
        image, label = dataset.read(index)
        rows.append(np.hstack([image, dataset.labels.colour(label)]))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]
    with atomic_path(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary, format="PNG")

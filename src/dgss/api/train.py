"""Training from end to end: recipe, data, model, training, scores, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dgss.api.datasets import Data, as_path, as_roots
from dgss.api.evaluate import score
from dgss.api.load import TrainedModel, load_model
from dgss.data.dataset import Dataset
from dgss.data.domains import domain
from dgss.data.loader import Loader
from dgss.errors import DataError, DgssError, RecipeError, WeightsError
from dgss.evaluation.panels import save_panels
from dgss.evaluation.protocols import protocol
from dgss.evaluation.report import Report, write_html
from dgss.files import RUNS, FolderLock, RunFolder, atomic_path, check_place, path_errors, write_text
from dgss.interfaces import ImageTower, Method
from dgss.recipes.library import unnamed_recipe
from dgss.recipes.schema import Recipe, differences
from dgss.training.checkpoint import restore_checkpoint
from dgss.training.devices import choose_device, memory_errors, peak_memory
from dgss.training.loggers import MetricsFile
from dgss.training.loop import StepReport, StopRequest, fit
from dgss.training.optimizer import build_optimizer
from dgss.training.progress import Progress
from dgss.weights.store import read_weights, save_weights

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

Folders = str | Path | Mapping[str, str | Path] | None


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


@dataclass(frozen=True)
class Plan:
    """A run that may begin: all that can be wrong with what was given has been looked at, and nothing is written.

    names: the domains to score on, the source first. finished: whether all of the run is there already. damage: what is
    wrong with the weights that are there; empty where nothing is.
    """

    recipe: Recipe
    folder: RunFolder
    device: torch.device
    sets: Data
    names: list[str]
    finished: bool
    damage: str = ""


def train(
    recipe: Recipe | str | Path | None = None,
    data: Folders = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_step: Callable[[StepReport], None] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Trains by a recipe, scores the source's validation images and all targets, writes the report.

    recipe: a `Recipe`, a name or a file; None the run's own when resuming, else `tqdm-mini-streets`. data: one folder
    for all domains or one per domain; drawn streets need none. out: the run's folder, by default `runs/NAME-OF-RECIPE`.
    resume: go on where the run in that folder stopped; a finished one is answered as it is. on_step: called after every
    step. Raises `Stopped`, a `KeyboardInterrupt`, after Ctrl-C or SIGTERM.
    """
    if on_step is not None and not callable(on_step):
        raise DgssError(f"on_step is {on_step!r}; it should be a function that takes a StepReport")
    progress = progress or Progress()
    plan = prepare(recipe, data, out, resume, device, progress)
    folder, metrics = plan.folder, MetricsFile(plan.folder.metrics, progress.warn)
    model = None if plan.finished else _build(plan, progress)  # before a write: what does not fit together ends here
    with FolderLock(folder.path), StopRequest(folder, at_once=True):
        if model is not None:
            folder.forget_scores()
        write_text(folder.recipe, plan.recipe.dump())
        if model is None:
            progress.say(f"{folder.path} is finished already; to train anew remove it or name another with --out")
            return Run(folder.path, plan.recipe, metrics.rows(), None, folder.read_scores())
        spent = 0.0
        if not isinstance(model, TrainedModel):
            model, spent = _fit(plan, model, progress, on_step)
        with _model_is_saved(folder), memory_errors("end other programs"):
            history = metrics.rows()
            earlier = max((row["seconds"] for row in history), default=0.0) - spent
            return _finish(plan, _score(plan, model, max(earlier, 0.0), progress), history)


def prepare(
    recipe: Recipe | str | Path | None,
    data: Folders,
    out: str | Path | None,
    resume: bool,
    device: str,
    progress: Progress,
    dry: bool = False,
) -> Plan:
    """What `train` does before its first write, for the same arguments. Raises where one of them is wrong.

    dry: nothing will be trained, so that a usual folder which is not free is only told.
    """
    if not isinstance(resume, bool):
        raise DgssError(f"resume is {resume!r}; it should be True or False")
    recipe = _settle(recipe, out, resume)
    recipe = recipe if data is None else recipe.change(data=as_roots(data))
    folder = RunFolder(RUNS / recipe.name if out is None else as_path(out, "out"))
    other_scores = False
    try:
        other_scores = _check_folder(folder, recipe, resume)
    except DgssError as error:
        if resume or out is not None or not dry:
            raise
        progress.say(f"note: {error}")
    check_place(folder.path)
    where = choose_device(device)
    sets = Data(as_roots(recipe.data), recipe.drawn.size, progress)
    names = [recipe.source, *(name for name in recipe.targets if name != recipe.source)]
    sets.check_trained(recipe.source)
    for name in names:
        sets.check_scored(name, recipe.labels, RULE)
    damage = _damage(folder)
    others = domain(recipe.source).drawn is None or recipe.source in sets.roots  # what is drawn on demand is sound
    if others and (damage or not folder.weights.exists()):  # there are steps to come
        sets.open(recipe.source, "train", recipe.drawn.train_images, memory=0).check()
    return Plan(recipe, folder, where, sets, names, folder.finished(names) and not (other_scores or damage), damage)


def _settle(recipe: Recipe | str | Path | None, out: str | Path | None, resume: bool) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        with path_errors(as_path(recipe, "recipe")):
            return Recipe.load(recipe)
    return Recipe.load(unnamed_recipe(None if out is None else as_path(out, "out"), resume))


def _check_folder(folder: RunFolder, recipe: Recipe, resume: bool) -> bool:
    """Raises where `recipe` may not be trained in the folder. Answers whether scores in it are of other settings."""
    if not folder.begun(resume) or not folder.trained:
        return False  # where nothing was trained yet the recipe may be mended
    earlier = Recipe.parse(_read(folder.recipe), str(folder.recipe), like=recipe)
    changes = differences(earlier, recipe, _NO_NUMBER + _SCORES_ONLY)
    if changes:
        raise RecipeError(
            f"{folder.path} holds another training ({'; '.join(changes[:4])}{' ...' if changes[4:] else ''}); "
            f"resume it without these changes, or name another folder with --out"
        )
    return bool(differences(earlier, recipe, _NO_NUMBER))


def _damage(folder: RunFolder) -> str:
    """What is wrong with the weights of a run, without advice; empty where they are whole or not there yet."""
    try:
        if folder.weights.exists():
            read_weights(folder.weights)
    except WeightsError as error:
        return str(error).rsplit("; ", 1)[0]
    return ""


def _build(plan: Plan, progress: Progress) -> Method | TrainedModel:
    """A model to train, or the trained one where only its scores are missing."""
    with memory_errors("take a smaller model: see method and tower in the recipe"):
        if plan.folder.weights.exists() and not plan.damage:
            method = load_model(plan.folder.weights, str(plan.device), plan.recipe).method
            return TrainedModel(method, plan.recipe, plan.device)  # scored by the settings of now
        method = plan.recipe.build()
        for tower in method.modules():
            if isinstance(tower, ImageTower) and tower.origin:
                progress.say(tower.origin)
        if plan.damage:
            progress.warn(f"{plan.damage}; it is made again from the checkpoint of step {_saved_step(plan, method)}")
        return method


def _saved_step(plan: Plan, method: Method) -> int:
    """The step of the newest whole checkpoint, which `method` is filled with. Raises `WeightsError` where none is."""
    optimizer, folder = build_optimizer(method.parameter_groups(), plan.recipe.training.optimizer), plan.folder
    with suppress(WeightsError):
        if step := restore_checkpoint(folder.checkpoints, method, optimizer, lambda _: None).step:
            return step
    raise WeightsError(
        f"{plan.damage}, and there is no whole checkpoint in {folder.checkpoints} to go on from; train anew with "
        f"another --out"
    )


def _fit(
    plan: Plan, method: Method, progress: Progress, on_step: Callable[[StepReport], None] | None
) -> tuple[TrainedModel, float]:
    """The trained model, written to the folder, and the seconds that its steps took in this process."""
    recipe, folder, settings = plan.recipe, plan.folder, plan.recipe.training
    with memory_errors(f"lower drawn.size {recipe.drawn.size}"):
        images = plan.sets.open(recipe.source, "train", min(4, recipe.drawn.train_images), workers=0)
        _preview(images, folder.preview)
        if settings.steps:  # else no more need be drawn
            images = plan.sets.open(recipe.source, "train", recipe.drawn.train_images)
    loader = Loader(images, recipe.augment, recipe.size, recipe.seed, settings.batch_size, settings.workers)
    progress.say(f"training {recipe.name} for {settings.steps} steps on {plan.device}; what it sees: {folder.preview}")
    begin = time.monotonic()
    with memory_errors(f"lower training.batch_size ({settings.batch_size}), training.workers or size"):
        position = fit(method, loader, settings, folder, recipe.seed, plan.device, progress, on_step)
    spent = time.monotonic() - begin
    save_weights(folder.weights, method.state_dict(), recipe.change(data=None).dump(), position.step)
    return TrainedModel(method, recipe, plan.device), spent


def _score(plan: Plan, model: TrainedModel, earlier: float, progress: Progress) -> Report:
    """The scores. earlier: the seconds of training before this process began."""
    recipe = plan.recipe
    results = score(model, plan.names, plan.sets, RULE, recipe.drawn.score_images, progress)
    return Report(
        source=results.pop(recipe.source),
        targets=results,
        protocol=RULE.name,
        source_name=recipe.source if recipe.training.steps else None,  # nothing was trained on it
        name=recipe.name,
        seed=recipe.seed,
        seconds=round(earlier + time.monotonic() - progress.begin, 1),
        peak_gb=round(peak_memory(), 3),
    )


def _finish(plan: Plan, report: Report, history: list[dict[str, Any]]) -> Run:
    """Pictures, page and numbers; the numbers last, since they say that all is there."""
    folder = plan.folder
    for result in report.results:
        save_panels(folder.picture(result.name), result.panels)
    write_html(folder.page, report, history)
    report.save(folder.scores)
    return Run(folder.path, plan.recipe, history, report, report.to_json())


@contextmanager
def _model_is_saved(folder: RunFolder) -> Iterator[None]:
    """Says of a failure after training that nothing of it is lost."""
    try:
        yield
    except DgssError as error:
        way = f"the model is saved, only its scores are missing; mend this, then {folder.how_to_go_on()}"
        raise type(error)(f"{error}; {way}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); name another folder with --out") from error


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

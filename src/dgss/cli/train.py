"""`dgss train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgss.cli.common import AsJson, Data, Debug, Device, foreseen, roots, show_json
from dgss.errors import RecipeError

if TYPE_CHECKING:
    from dgss.recipes.schema import Resolved
    from dgss.training.progress import Progress


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="A recipe's name or file, then changes of it such as training.steps=200.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None,
        # readable: what is wrong with the folder is told as everything else is, not as wrong usage
        typer.Option("--out", metavar="DIR", readable=False, help="Folder of the run; default runs/NAME-OF-RECIPE."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run in --out stopped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every value of the recipe and what it will take; write nothing.")
    ] = False,
    as_json: AsJson = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Train a model on one domain, score it on domains it never saw, and write a report.

    Without arguments: trains tqdm-mini-streets on drawn streets and scores eight unseen looks, in minutes on a laptop.
    """
    with foreseen(debug):
        recipe, overrides = _split(arguments or [], out, resume)
        going_on = ["--resume", *([] if out is None else ["--out", str(out)]), *(arguments or [])]
        typer.echo(f"dgss train {shlex.join(going_on if resume else [recipe, *overrides])}", err=as_json)
        _check_names(recipe, out, resume)
        from dgss.training.progress import Progress

        progress = Progress(sys.stderr if as_json else sys.stdout)
        progress.say("loading PyTorch")
        from dgss.api.train import prepare
        from dgss.api.train import train as run_training
        from dgss.recipes.schema import resolve

        folders = roots(data)
        resolved = resolve(recipe, overrides, {"data": folders} if folders else None)
        if dry_run:
            prepare(resolved.recipe, folders, out, resume, device, progress, dry=True)
            _dry_run(resolved, device, as_json, progress)
            return
        run = run_training(resolved.recipe, folders, out, resume, device=device, progress=progress)
        if as_json:
            show_json({**run.scores, "path": str(run.path)})
        else:
            typer.echo(run.report.table() if run.report else _summary(run.scores))
            typer.echo(f"report: {run.path / 'report.html'}")


def _summary(scores: Mapping[str, Any]) -> str:
    shown = {key: "-" if scores.get(key) is None else f"{scores[key]:.2f}" for key in ("source", "mean", "rpd")}
    return f"source {shown['source']} %, mean of targets {shown['mean']} %, rPD {shown['rpd']} %"


def _split(arguments: list[str], out: Path | None, resume: bool) -> tuple[str, list[str]]:
    """The recipe and the overrides; a resumed run brings its own recipe."""
    from dgss.recipes.library import unnamed_recipe

    if arguments and ("=" not in arguments[0] or _is_file(arguments[0])):
        return arguments[0], arguments[1:]
    return str(unnamed_recipe(out, resume)), arguments


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # an override may be longer than a file's name
        return False


def _check_names(recipe: str, out: Path | None, resume: bool) -> None:
    """What is wrong with the recipe's name or file, or with `--out`, at once: before PyTorch is loaded."""
    from dgss.files import RunFolder, path_errors
    from dgss.recipes.library import read

    place = Path(recipe)
    with path_errors(place):
        try:
            read(recipe)
        except RecipeError:
            run = RunFolder(place)
            if run.recipe.is_file():
                raise RecipeError(f"{recipe} is the folder of a run, not a recipe; {run.how_to_go_on()}") from None
            raise
    if out is not None:
        RunFolder(out).begun(resume)


def _dry_run(resolved: Resolved, device: str, as_json: bool, progress: Progress) -> None:
    from dataclasses import asdict

    from dgss.api.estimate import estimate

    values = resolved.values()
    if not as_json:
        width = max(map(len, values))
        for key, value in values.items():
            progress.say(f"{key:<{width}}  {value}  ({resolved.origins[key]})")
    found = estimate(resolved.recipe, device)
    if as_json:
        recipe = {key: {"value": value, "origin": resolved.origins[key]} for key, value in values.items()}
        show_json({"recipe": recipe, "estimate": asdict(found)})
    else:
        for line in found.lines():
            progress.say(line)

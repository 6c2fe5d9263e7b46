"""Published checkpoints as runs of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dgss.api.datasets import as_path
from dgss.errors import DataError, WeightsError
from dgss.files import RUNS, FolderLock, RunFolder, check_place, path_errors, write_text
from dgss.recipes.schema import Recipe
from dgss.towers.published import few, find_weights, read_tensors
from dgss.training.devices import memory_errors
from dgss.weights.reference import Filling, fill, recognise
from dgss.weights.store import save_weights


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint.

    path: the folder of the run that was made. filling: what became of its tensors. others: recipes whose checkpoints
    have the same names, where none was named.
    """

    path: Path
    recipe: Recipe
    filling: Filling
    others: tuple[str, ...] = ()

    def table(self) -> str:
        """The report for people."""
        filling = self.filling
        lines = [f"{len(filling.used)} tensors used, under the names of this package"]
        lines += [f"{len(filling.reshaped)} of them stored in another shape: {few(filling.reshaped)}"]
        lines += [f"{len(names)} ignored, {reason}: {few(names)}" for reason, names in filling.ignored.items()]
        lines += [f"{len(filling.absent)} not in the file, random now: {few(filling.absent)}"]
        shown = [line for line in lines if not line.startswith("0 ")]
        shown += [
            f"taken for {self.recipe.name}; it may be of {name}, then convert it with --recipe {name}"
            for name in self.others
        ]
        return "\n".join([*shown, f"recipe {self.recipe.name}, model: {self.path}"])


def convert(
    file: str | Path, recipe: Recipe | str | Path | None = None, out: str | Path | None = None, strict: bool = True
) -> Conversion:
    """Makes a run of a published checkpoint, which `load_model`, `evaluate` and `predict` take as any other.

    file: a path or `hf:owner/repo/file`. recipe: by which it was trained; None: the usual one of files with such names.
    out: the run's folder, by default `runs/` and the name of the recipe. strict: False takes what fits, leaves the rest
    random and says so. Nothing of the file is executed. Raises `WeightsError` where a tensor is missing, too many or of
    another shape.
    """
    chosen = Recipe.load(recipe) if isinstance(recipe, str | Path) else recipe
    if out is not None or chosen is not None:  # before a large file is read
        _free(chosen, out)
    source = find_weights(str(file))
    with memory_errors("convert it on a machine with more memory"):
        theirs = read_tensors(source)
        kind = recognise(theirs, str(source))
        chosen = chosen or Recipe.load(kind.recipes[0])
        folder = _free(chosen, out)
        method = chosen.build(trained=True)
        try:
            filling = fill(method, theirs, kind.keys, f"{source} does not fit the recipe {chosen.name}", strict)
        except WeightsError as error:
            raise WeightsError(f"{error}; --partial takes what fits") from error
        del theirs
        with path_errors(folder.path), FolderLock(folder.path):
            write_text(folder.recipe, chosen.dump())
            save_weights(folder.weights, method.state_dict(), chosen.change(data=None).dump(), step=0)
    others = tuple(name for name in kind.recipes if recipe is None and name != chosen.name)
    return Conversion(folder.path, chosen, filling, others)


def _free(recipe: Recipe | None, out: str | Path | None) -> RunFolder:
    """The folder of the run to be made. Raises `DataError` where something lies in it."""
    folder = RunFolder(as_path(out, "out") if out is not None else RUNS / recipe.name if recipe else RUNS)
    with path_errors(folder.path):
        if folder.path.exists() and (folder.path.is_file() or any(folder.path.iterdir())):
            raise DataError(f"{folder.path} is not empty; name another folder with --out")
    check_place(folder.path)
    return folder

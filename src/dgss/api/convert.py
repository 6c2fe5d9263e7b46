"""Published checkpoints as runs of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dgss.api.datasets import as_path
from dgss.api.load import Reading, read_published
from dgss.errors import DataError
from dgss.files import RUNS, FolderLock, RunFolder, check_place, path_errors, write_text
from dgss.recipes.schema import Recipe
from dgss.towers.published import find_weights
from dgss.training.devices import memory_errors
from dgss.weights.store import save_weights


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint. path: the folder of the run that was made. reading: what it was made of."""

    path: Path
    reading: Reading

    def table(self) -> str:
        """The report for people."""
        return f"{self.reading.table()}\nrecipe {self.reading.recipe.name}, model: {self.path}"


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
        method, reading = read_published(source, chosen, strict)
        folder = _free(reading.recipe, out)
        with path_errors(folder.path), FolderLock(folder.path):
            write_text(folder.recipe, reading.recipe.dump())
            save_weights(folder.weights, method.state_dict(), reading.recipe.change(data=None).dump(), step=0)
    return Conversion(folder.path, reading)


def _free(recipe: Recipe | None, out: str | Path | None) -> RunFolder:
    """The folder of the run to be made. Raises `DataError` where something lies in it."""
    folder = RunFolder(as_path(out, "out") if out is not None else RUNS / recipe.name if recipe else RUNS)
    with path_errors(folder.path):
        if folder.path.exists() and (folder.path.is_file() or any(folder.path.iterdir())):
            raise DataError(f"{folder.path} is not empty; name another folder with --out")
    check_place(folder.path)
    return folder

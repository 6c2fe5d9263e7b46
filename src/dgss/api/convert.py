"""Published checkpoints as runs of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dgss.api.datasets import as_path
from dgss.errors import DataError
from dgss.files import RUNS, FolderLock, RunFolder, check_place, path_errors, write_text
from dgss.recipes.schema import Recipe
from dgss.towers.published import find_weights, read_tensors
from dgss.weights.reference import Filling, fill, recognise
from dgss.weights.store import save_weights


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint. path: the folder of the run that was made. filling: what became of its tensors."""

    path: Path
    recipe: Recipe
    filling: Filling

    def table(self) -> str:
        """The report for people."""
        filling = self.filling
        lines = [f"{len(filling.used)} tensors used, under the names of this package"]
        lines += [f"{len(filling.reshaped)} of them stored in another shape: {_few(filling.reshaped)}"]
        lines += [f"{len(names)} ignored, {reason}: {_few(names)}" for reason, names in filling.ignored.items()]
        lines += [f"{len(filling.absent)} not in the file, random now: {_few(filling.absent)}"]
        shown = [line for line in lines if not line.startswith("0 ")]
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
    source = find_weights(str(file))
    theirs = read_tensors(source)
    kind = recognise(theirs, str(source))
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe or kind.recipes[0])
    folder = RunFolder(RUNS / chosen.name if out is None else as_path(out, "out"))
    if folder.begun(resume=False):
        raise DataError(f"{folder.path} is not empty; name another folder with --out")
    check_place(folder.path)
    method = chosen.build(trained=True)
    filling = fill(method, theirs, kind.keys, f"{source} does not fit the recipe {chosen.name}", strict)
    with path_errors(folder.path), FolderLock(folder.path):
        write_text(folder.recipe, chosen.dump())
        save_weights(folder.weights, method.state_dict(), chosen.change(data=None).dump(), step=0)
    return Conversion(folder.path, chosen, filling)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

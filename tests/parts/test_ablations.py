"""The table of the ablations: which runs are made, that none is made twice, what the table says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from dgss.errors import DgssError
from dgss.recipes.library import list_recipes, preset_names
from dgss.recipes.schema import Recipe
from dgss.weights.store import save_weights

ROOT = Path(__file__).parents[2]
FULL, PRIOR, SCRATCH = "tqdm-mini-streets", "tqdm-mini-no-prior", "tqdm-mini-scratch-tower"
PAGE = "before\n\n<!-- table -->\nold\n<!-- /table -->\n\nafter\n"


@pytest.fixture
def making(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/ablations.py, with a table of three rows."""
    module, table = script("ablations"), script("ablation_table")
    for name in [name for name in table.ROWS if name not in (FULL, PRIOR, SCRATCH)]:
        monkeypatch.delitem(table.ROWS, name)
    return module


@pytest.fixture
def tables(making: Any) -> Any:
    """scripts/ablation_table.py."""
    return sys.modules["ablation_table"]


def test_every_row_is_a_recipe_and_every_variant_a_row(script: Callable[[str], ModuleType]) -> None:
    names = script("ablation_table").ROWS
    variants = {recipe.name for recipe in list_recipes() if recipe.variant}
    assert variants <= set(names) <= set(preset_names()) and next(iter(names)) == FULL


def score(tables: Any, mean: float | None, **values: Any) -> Any:
    given = {"steps": 150, "source": 60.0, "rpd": 70.0, "seconds": 300.0, "protocol": "drawn", "images": 96}
    return tables.Score(mean=mean, **{**given, "made": date(2026, 1, 2), **values})


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_differences_are_taken_seed_by_seed(tables: Any) -> None:
    """Mutations: the difference of the means; the deviation of the whole population; rows as the files come."""
    scores = {tables.Run(PRIOR, seed): score(tables, mean) for seed, mean in ((0, 41.0), (2, 39.0))}
    scores |= {tables.Run(FULL, seed): score(tables, 40.0 + 2 * seed, camvid=41.0 + seed) for seed in (0, 1, 2)}
    first, second, third = rows(tables.table(scores, {}))
    assert first == [
        *("full tqdm", f"`{FULL}`", "150", "60.0 ± 0.0", "42.0 ± 2.0", "", "70.0 ± 0.0", "42.0 ± 1.0", "300"),
        "0, 1, 2",
    ]
    # 41 - 40 and 39 - 44
    assert second == [
        *("no score-map prior", f"`{PRIOR}`", "150", "60.0 ± 0.0", "40.0 ± 1.4", "-2.0 ± 4.2", "70.0 ± 0.0", "-"),
        *("300", "0, 2"),
    ]
    assert third[:3] == ["tower from scratch, no prior", f"`{SCRATCH}`", "not run yet"] and len(third) == 10


def test_what_has_no_number_is_a_dash_and_zero_has_no_minus(tables: Any) -> None:
    scores = {tables.Run(FULL, 0): score(tables, 40.04), tables.Run(PRIOR, 0): score(tables, 40.0)}
    scores[tables.Run(SCRATCH, 0)] = score(tables, None, source=None, rpd=None)
    _, second, third = rows(tables.table(scores, {}))
    assert second[5] == "+0.0" and third[3:8] == ["-", "-", "-", "-", "-"]


def test_a_run_that_could_not_be_made_says_why(tables: Any) -> None:
    faults = {tables.Run(SCRATCH, 0): "needs a | b", tables.Run(FULL, 1): "not the first seed"}
    scores = {tables.Run(FULL, 0): score(tables, 40.0)}
    first, _, third = rows(tables.table(scores, faults).replace("\\|", "/"))
    assert third[2] == "not run: needs a / b" and first[4] == "40.0"


@pytest.mark.parametrize(("mean", "asked"), [(40.0, True), (37.0, True), (43.0, True), (36.9, False), (None, False)])
def test_further_seeds_are_asked_where_it_is_close(tables: Any, mean: float | None, asked: bool) -> None:
    """Mutations: only those below the full method; the full method left out."""
    scores = {tables.Run(FULL, 0): score(tables, 40.0), tables.Run(SCRATCH, 0): score(tables, mean)}
    names = [FULL, SCRATCH] if asked else [FULL]
    assert tables.further(scores, 3.0) == [tables.Run(name, seed) for seed in (1, 2) for name in names]
    assert tables.further({tables.Run(PRIOR, 0): score(tables, 40.0)}, 3.0) == []


def test_further_seeds_of_named_recipes_are_made_whatever_they_score(tables: Any) -> None:
    """Mutations: what is close left out; made without a seed 0; a row that is not trained made thrice."""
    scores = {tables.Run(FULL, 0): score(tables, 40.0), tables.Run(PRIOR, 0): score(tables, 12.0)}
    both = [tables.Run(name, seed) for seed in (1, 2) for name in (FULL, PRIOR)]
    assert tables.further(scores, 3.0, [PRIOR, SCRATCH]) == both
    assert tables.further({tables.Run(PRIOR, 0): score(tables, 12.0, steps=0)}, 3.0, [PRIOR]) == []


def test_page_and_picture_are_written_between_the_marks(tables: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    scores = {tables.Run(FULL, seed): score(tables, 40.0 + seed) for seed in (0, 1)}
    scores[tables.Run(PRIOR, 0)] = score(tables, 12.0, made=date(2026, 1, 3), images=24, camvid=1.0, protocol="other")
    for _ in range(2):  # mutation: what was written before stays
        tables.write(page, scores, {}, "a machine", "--close 5")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n\n<!-- table -->\n\n`make ablations CAMVID=DIR` with `--close 5`; a machine, ")
    assert text.endswith(f"{tables.SHOWN}\n\n<!-- /table -->\n\nafter\n") and text.count("full tqdm |") == 1
    assert "2026-01-02 to 2026-01-03" in text and "`drawn`, `other`, 24 to 96 images" in text and "old" not in text
    with Image.open(tmp_path / "images" / "ablations.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert {tables.BLUE, tables.PALE} <= colours
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(DgssError, match="lacks the lines <!-- table --> and <!-- /table -->"):
        tables.write(page, scores, {}, "a machine", "")


def test_without_a_finished_run_the_page_stays_as_it_is(
    making: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert making.main(["--table-only", "--runs", str(tmp_path / "none"), "--page", str(page)]) == 1
    assert page.read_text(encoding="utf-8") == PAGE and "no run is finished" in capsys.readouterr().err


def finish(run: Path, recipe: str, changes: Sequence[str], mean: float) -> None:
    """Writes what the training of a recipe leaves, without training."""
    made = Recipe.load(recipe, changes)
    (run / "predictions").mkdir(parents=True, exist_ok=True)
    for name in (made.source, *made.targets):
        (run / "predictions" / f"{name}.png").touch()
    (run / "report.html").touch()
    (run / "recipe.yaml").write_text(made.dump(), encoding="utf-8")
    save_weights(run / "model.safetensors", {"x": torch.zeros(1)}, made.dump(), made.training.steps)
    report = {"source": 60.0, "mean": mean, "rpd": 70.0, "seconds": 9.0, "protocol": "drawn"}
    report["images"] = {made.source: 96}
    (run / "report.json").write_text(json.dumps(report), encoding="utf-8")


class StandIn:
    """Takes the place of the processes of `dgss`. commands: all that were begun."""

    def __init__(self, making: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.commands: list[list[str]] = []
        self.means = {FULL: 40.0, PRIOR: 38.0, SCRATCH: 12.0}
        self.broken, self.stopped = "", ""
        self.running: list[subprocess.Popen[bytes]] = []
        self.page = tmp_path / "page.md"
        self.page.write_text(PAGE, encoding="utf-8")
        self.options = ["--runs", str(tmp_path / "runs"), "--page", str(self.page), "--jobs", "2"]
        monkeypatch.setattr(making, "start", self.start)
        monkeypatch.setattr(making, "_POLL", 0.01)
        monkeypatch.setattr(making.signal, "signal", lambda *_: None)
        self.main = making.main

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        verb, name, *rest = command
        if name == self.stopped:
            raise KeyboardInterrupt
        self.commands.append(command)
        code = "import time; time.sleep(60)" if self.stopped else ""
        if verb == "train" and name == self.broken:
            log.parent.mkdir(exist_ok=True)
            log.write_text("error: old\nerror: the package is missing; install it\n", encoding="utf-8")
            code = "raise SystemExit(1)"
        elif verb == "train" and not self.stopped:
            out = Path(rest[rest.index("--out") + 1])
            finish(out, name, rest[: rest.index("--out")], self.means[name])
        elif verb == "evaluate":
            Path(rest[rest.index("--out") + 1]).write_text('{"targets": {"camvid": 33.3}}', encoding="utf-8")
        self.running.append(subprocess.Popen([sys.executable, "-S", "-c", code]))
        return self.running[-1]

    def made(self) -> list[str]:
        """The runs that were begun since the last look: the verb and the name of the folder."""
        commands, self.commands = self.commands, []
        place = {"train": lambda it: it[it.index("--out") + 1], "evaluate": lambda it: it[1]}
        return [f"{command[0]} {Path(place[command[0]](command)).name}" for command in commands]


@pytest.fixture
def stand_in(making: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    return StandIn(making, monkeypatch, tmp_path)


def test_seed_0_of_all_comes_first_and_nothing_is_made_twice(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stand_in.main(stand_in.options) == 0
    made = stand_in.made()
    assert sorted(made[:3]) == sorted(f"train {name}-seed0" for name in (FULL, PRIOR, SCRATCH))
    assert sorted(made[3:]) == sorted(f"train {name}-seed{seed}" for name in (FULL, PRIOR) for seed in (1, 2))
    told = capsys.readouterr().out.splitlines()
    assert sum("source 60.0" in line for line in told) == 7 and "2 left, about 9 s" in told[0]
    assert "| -2.0 ± 0.0 |" in stand_in.page.read_text(encoding="utf-8")
    assert stand_in.main(stand_in.options) == 0 and stand_in.made() == []  # mutation: begun without a look
    recipe = (tmp_path / "runs" / f"{FULL}-seed2" / "recipe.yaml").read_text(encoding="utf-8")
    assert "score_images: 96" in recipe and "threads: 1" in recipe and "\nseed: 2" in recipe


def test_the_options_that_were_used_are_told(
    stand_in: StandIn, making: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert making.Plan().options() == ""
    stand_in.means[PRIOR] = 12.0
    assert (
        stand_in.main([*stand_in.options, "--close", "0.5", "--more", PRIOR, "--override", "training.log_every=3"]) == 0
    )
    assert [name for name in stand_in.made() if PRIOR in name] == [f"train {PRIOR}-seed{seed}" for seed in (0, 1, 2)]
    told = f"`make ablations` with `--override training.log_every=3 --close 0.5 --more {PRIOR}`; "
    assert told in stand_in.page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        stand_in.main([*stand_in.options, "--more", "tqdm"])
    assert "invalid choice: 'tqdm'" in capsys.readouterr().err


def test_what_stopped_goes_on(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.means[PRIOR] = 20.0
    assert stand_in.main(stand_in.options) == 0
    for place in (tmp_path / "runs" / f"{PRIOR}-seed0").iterdir():
        if place.is_file() and place.name != "recipe.yaml":
            place.unlink()
    stand_in.commands.clear()
    assert stand_in.main(stand_in.options) == 0
    (command,) = stand_in.commands
    assert command[:2] == ["train", PRIOR] and command[-1] == "--resume"


def test_camvid_is_scored_once_for_each_training(
    stand_in: StandIn, making: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*stand_in.options, "--close", "-1", "--camvid", str(tmp_path)]
    assert stand_in.main(options) == 1 and stand_in.made() == []  # mutation: a wrong folder is seen after an hour
    assert "camvid" in capsys.readouterr().err
    monkeypatch.setattr(making, "domain", lambda _: SimpleNamespace(pairs=lambda *_: None))
    assert stand_in.main(options) == 0
    made = stand_in.made()
    runs = [f"{name}-seed0" for name in (FULL, PRIOR, SCRATCH)]
    assert sorted(made) == sorted(f"{verb} {run}" for verb in ("train", "evaluate") for run in runs)
    assert all(made.index(f"train {run}") < made.index(f"evaluate {run}") for run in runs)
    assert stand_in.page.read_text(encoding="utf-8").count("| 33.3 |") == 3
    os.utime(tmp_path / "runs" / runs[0] / "report.json", (2e9, 2e9))  # scored anew since
    (tmp_path / "runs" / runs[2] / "camvid.json").unlink()
    assert stand_in.main(options) == 0
    assert sorted(stand_in.made()) == sorted(f"evaluate {run}" for run in (runs[0], runs[2]))


def test_a_run_that_fails_is_told_and_the_rest_is_made(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.broken = SCRATCH
    assert stand_in.main(stand_in.options) == 1
    reason = "not run: the package is missing; install it"
    assert f"{SCRATCH}-seed0: {reason}" in capsys.readouterr().out
    assert f"| `{SCRATCH}` | {reason} |" in stand_in.page.read_text(encoding="utf-8")
    assert len(stand_in.made()) == 7
    before = stand_in.page.read_text(encoding="utf-8")
    assert stand_in.main([*stand_in.options, "--override", "training.steps=3"]) == 1  # the runs there are of others
    assert "holds another training (training.steps was 150, is 3)" in capsys.readouterr().err
    assert stand_in.page.read_text(encoding="utf-8") == before  # a table is not emptied


def test_stopped_it_stops_its_processes_and_says_how_to_go_on(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.stopped = PRIOR
    assert stand_in.main(stand_in.options) == 130
    assert [process.poll() is not None for process in stand_in.running] == [True]  # mutation: left to run
    assert "go on with: python scripts/ablations.py --runs" in capsys.readouterr().err
    assert "old" in stand_in.page.read_text(encoding="utf-8")

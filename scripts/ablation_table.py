"""The table and the picture of the ablations, from the files of their runs; `scripts/ablations.py` makes these."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dgss.errors import DgssError
from dgss.files import RunFolder, atomic_path, write_text
from dgss.recipes import library

BEGIN, END = "<!-- table -->", "<!-- /table -->"
FULL = "tqdm-mini-streets"
ROWS = {
    FULL: "full tqdm",
    "tqdm-mini-random-queries": "random queries",
    "tqdm-mini-no-text-attention": "no text-to-pixel attention",
    "tqdm-mini-no-language-loss": "no L_L",
    "tqdm-mini-no-vision-language-loss": "no L_VL",
    "tqdm-mini-no-vision-loss": "no L_V",
    "tqdm-mini-fixed-prompts": "fixed prompts",
    "tqdm-mini-no-context-decoder": "no context decoder",
    "tqdm-mini-no-prior": "no score-map prior",
    "tqdm-mini-random-queries-no-prior": "random queries, no prior",
    "linear-mini-streets": "linear classifier, no text",
    "mask2former-mini-streets": "Mask2Former",
    "tqdm-mini-imagenet-tower": "ImageNet tower, no prior",
    "tqdm-mini-scratch-tower": "tower from scratch, no prior",
    "tqdm-mini-frozen-tower": "frozen tower",
    "zero-shot-mini-streets": "zero-shot, not trained",
}
"""Recipes in the order of the table, and what of the full method each changes."""
SEEDS = (0, 1, 2)
COLUMNS = (
    *("what was changed", "recipe", "steps", "source", "mean of targets", "difference to full"),
    *("rPD", "CamVid", "seconds", "seeds"),
)


@dataclass(frozen=True)
class Run:
    """One training of the table."""

    recipe: str
    seed: int

    def __str__(self) -> str:
        return f"{self.recipe}-seed{self.seed}"

    def folder(self, runs: Path) -> RunFolder:
        """Where it lies in the folder of all runs."""
        return RunFolder(runs / str(self))

    def camvid(self, runs: Path) -> Path:
        """The answer of `dgss evaluate` on CamVid."""
        return runs / str(self) / "camvid.json"


@dataclass(frozen=True)
class Score:
    """What the files of a finished run say: mIoU and rPD in percent; None where there is no such number."""

    steps: int
    source: float | None
    mean: float | None
    rpd: float | None
    seconds: float
    protocol: str
    images: int
    made: date
    camvid: float | None = None


Scores = Mapping[Run, Score]


def read_scores(runs: Path) -> dict[Run, Score]:
    """The scores of all finished runs in a folder. Raises `DgssError` where a file is not what a run writes."""
    all_runs = [Run(name, seed) for name in ROWS for seed in SEEDS]
    return {run: _read_score(run, runs) for run in all_runs if run.folder(runs).scores.is_file()}


def _read_score(run: Run, runs: Path) -> Score:
    folder, camvid = run.folder(runs), run.camvid(runs)
    found = folder.read_scores()
    try:
        real = json.loads(camvid.read_text(encoding="utf-8"))["targets"]["camvid"] if camvid.is_file() else None
        return Score(
            steps=library.read(folder.recipe)["training"]["steps"],
            source=found["source"],
            mean=found["mean"],
            rpd=found["rpd"],
            seconds=float(found["seconds"]),
            protocol=found["protocol"],
            images=max(found["images"].values()),
            made=date.fromtimestamp(folder.scores.stat().st_mtime),
            camvid=real,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DgssError(f"{folder.path} holds no whole run ({error!r}); remove it and start again") from error


def further(scores: Scores, close: float, more: Sequence[str] = ()) -> list[Run]:
    """The runs of the other seeds: of the full method, of what is within `close` points of it, of the recipes `more`.

    Each only if its seed 0 is there. What is not trained is the same for every seed.
    """
    first = {name: score for name in ROWS if (score := scores.get(Run(name, SEEDS[0]))) is not None}
    means = {name: score.mean for name, score in first.items() if score.mean is not None}
    near = {name for name, mean in means.items() if FULL in means and abs(mean - means[FULL]) <= close}
    return [Run(name, seed) for seed in SEEDS[1:] for name, s in first.items() if s.steps and name in {*near, *more}]


def cell(values: Sequence[float | None], form: str = ".1f") -> str:
    """The mean, and with several values the sample standard deviation; `-` where there is nothing."""
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    mean = format(round(statistics.mean(there), 1) + 0.0, form)  # + 0.0: no negative zero
    return mean if len(there) == 1 else f"{mean} ± {statistics.stdev(there):.1f}"


def table(scores: Scores, faults: Mapping[Run, str]) -> str:
    """The rows in Markdown. faults: why a run is not there."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(_row(name, scores, faults) for name in ROWS)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name: str, scores: Scores, faults: Mapping[Run, str]) -> tuple[str, ...]:
    """The cells of one recipe; its difference to the full method is taken seed by seed."""
    found = {seed: scores[Run(name, seed)] for seed in SEEDS if Run(name, seed) in scores}
    if not found:
        fault = faults.get(Run(name, SEEDS[0]))
        reason = "not run yet" if fault is None else "not run: " + fault.replace("|", "\\|")
        return ROWS[name], f"`{name}`", reason, *[""] * (len(COLUMNS) - 3)
    each = list(found.values())
    differences = [
        score.mean - full.mean
        for seed, score in found.items()
        if (full := scores.get(Run(FULL, seed))) and score.mean is not None and full.mean is not None
    ]
    return (
        *(ROWS[name], f"`{name}`", ", ".join(dict.fromkeys(str(score.steps) for score in each))),
        *(cell([score.source for score in each]), cell([score.mean for score in each])),
        "" if name == FULL else cell(differences, "+.1f"),
        *(cell([score.rpd for score in each]), cell([score.camvid for score in each])),
        f"{statistics.mean(score.seconds for score in each):.0f}",
        ", ".join(map(str, found)),
    )


def heading(scores: Scores, machine: str, options: str) -> str:
    """Command, machine and date, and what the numbers are. options: of `scripts/ablations.py`, empty without."""
    each = scores.values()
    command = "make ablations" + (" CAMVID=DIR" if any(score.camvid is not None for score in each) else "")
    changed = f" with `{options}`" if options else ""
    days, counts = {score.made for score in each}, {score.images for score in each}
    dates = " to ".join(dict.fromkeys(str(found) for found in (min(days), max(days))))
    rules = ", ".join(sorted({f"`{score.protocol}`" for score in each}))
    images = " to ".join(dict.fromkeys(str(found) for found in (min(counts), max(counts))))
    return (
        f"`{command}`{changed}; {machine}, one thread a run; {dates}. mIoU in percent, protocol {rules}, {images} "
        f"images a domain; mean ± sample standard deviation where there are several seeds, differences seed by seed."
    )


def write(page: Path, scores: Scores, faults: Mapping[Run, str], machine: str, options: str) -> None:
    """Puts the table into the page, between the two marks, and the picture beside it.

    Raises `DgssError` where that cannot be, or where no run is finished: a table that stands there is not emptied.
    """
    if not scores:
        reasons = "".join(f"; {run}: {reason}" for run, reason in list(faults.items())[:1])
        raise DgssError(f"no run is finished, so {page} stays as it is{reasons}")
    body = "\n\n".join((heading(scores, machine, options), table(scores, faults), SHOWN))
    text = with_between(page, BEGIN, END, f"\n{body}\n")
    with atomic_path(page.parent / "images" / "ablations.png") as temporary:
        picture(scores).save(temporary, format="PNG", optimize=True)
    write_text(page, text)


def with_between(page: Path, begin: str, end: str, body: str) -> str:
    """The text of a page with all between two marks replaced. Raises `DgssError` where page or marks are missing."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DgssError(f"{page} cannot be read ({error}); name another page or folder") from error
    head, opened, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not opened or not closed:
        raise DgssError(f"{page} lacks the lines {begin} and {end}, between which this is written; add them")
    return f"{head}{begin}\n{body}\n{end}{tail}"


INK, FAINT, GRID, BLUE, PALE = (30, 34, 38), (110, 116, 122), (226, 229, 232), (31, 99, 176), (196, 164, 118)
SCALE = 2  # drawn at twice the size, for sharp letters
ROW, LEFT, PANEL, GAP, TOP, FOOT = (SCALE * length for length in (34, 230, 340, 40, 40, 34))
Colour = tuple[int, int, int]
SHOWN = """![Mean of targets and source of every row](images/ablations.png)

_A dot is one training, of several seeds one below the other; the vertical lines are the means of full tqdm._"""


def picture(scores: Scores) -> Image.Image:
    """A dot for each run: mean of targets on the left, source on the right; the full method's means as lines."""
    names = [name for name in ROWS if any(run.recipe == name for run in scores)]
    sheet = Image.new("RGB", (LEFT + 2 * (PANEL + GAP), TOP + ROW * len(names) + FOOT), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14 * SCALE)
    for number, name in enumerate(names):
        draw.text((LEFT - GAP // 2, TOP + ROW * number + ROW // 2), ROWS[name], INK, font, anchor="rm")
    for column, (title, colour) in enumerate((("mean of targets", BLUE), ("source", PALE))):
        left = LEFT + column * (PANEL + GAP)
        draw.text((left, TOP // 2), f"{title}, mIoU in %", colour, font, anchor="lm")
        values = {run: score.source if column else score.mean for run, score in scores.items()}
        dots = [(names.index(run.recipe) + _height(run, scores), it) for run, it in values.items() if it is not None]
        _panel(draw, left, len(names), dots, colour)
    return sheet


def _height(run: Run, scores: Scores) -> float:
    """Where in its row a dot lies, between 0 and 1: of several seeds one below the other."""
    several = any(Run(run.recipe, seed) in scores for seed in SEEDS if seed != run.seed)
    return (run.seed + 1) / (len(SEEDS) + 1) if several else 0.5


def _panel(draw: ImageDraw.ImageDraw, left: int, rows: int, dots: Sequence[tuple[float, float]], hue: Colour) -> None:
    """Grid, dots (height in rows, value) and the line of the full method, which is the first row."""
    low = 5 * int(min((value for _, value in dots), default=0.0) // 5)
    high = max(5 * -int(-max((value for _, value in dots), default=0.0) // 5), low + 5)
    bottom, font = TOP + ROW * rows, ImageFont.load_default(12 * SCALE)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * PANEL

    for tick in range(low, high + 1, 5 if high - low <= 40 else 10):
        draw.line((x(tick), TOP, x(tick), bottom), GRID, SCALE)
        draw.text((x(tick), bottom + FOOT // 5), str(tick), FAINT, font, anchor="ma")
    for row in range(rows + 1):
        draw.line((left, TOP + ROW * row, left + PANEL, TOP + ROW * row), GRID, 1)
    full = [value for height, value in dots if height < 1]
    if full:
        draw.line((x(statistics.mean(full)), TOP, x(statistics.mean(full)), bottom), hue, SCALE)
    for height, value in dots:
        centre, radius = (x(value), TOP + ROW * height), 5 * SCALE
        box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
        draw.ellipse(box, hue, (255, 255, 255), SCALE)

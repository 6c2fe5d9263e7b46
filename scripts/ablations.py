"""Trains the rows of the ablations, each a recipe, and writes their table and picture: `make ablations`.

All rows with seed 0 first, then seeds 1 and 2 of the full method, of every row that came close to it and of those that
`--more` names. Stopped and started again it goes on; what is finished is not made twice. Every number of the table is
read from the runs' files.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ablation_table import ROWS, SEEDS, Run, cell, further, read_scores, write
from dgss.api.train import prepare
from dgss.data.domains import domain
from dgss.errors import DgssError
from dgss.evaluation.protocols import protocol
from dgss.files import RUNS, usable_cores
from dgss.recipes.schema import Recipe
from dgss.training.progress import Progress, duration

PAGE = Path(__file__).parents[1] / "docs" / "ablations.md"
CHANGES = ("drawn.score_images=96", "training.threads=1")
"""Of every recipe: more images than the demo scores on, and as many runs at a time as there are cores."""
_POLL = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Plan:
    """What is asked for. runs: the folder of all runs. camvid: the folder of its frames, None without.

    close: within how many points of the full method further seeds are made. more: recipes that get them in any case.
    """

    runs: Path = RUNS / "ablations"
    camvid: Path | None = None
    jobs: int = 1
    close: float = 3.0
    overrides: Sequence[str] = ()
    more: Sequence[str] = ()

    def options(self) -> str:
        """What decides about the numbers and is not usual, as it stands on the command line."""
        words = [f"--override {each}" for each in self.overrides]
        words += [f"--close {self.close:g}"] if self.close != Plan.close else []
        return " ".join([*words, "--more", *self.more] if self.more else words)

    def commands(self, run: Run) -> Iterator[list[str]]:
        """What of a run is still to be done, one command after another. Raises `DgssError` where it cannot be."""
        folder, answer = run.folder(self.runs), run.camvid(self.runs)
        changes = [*CHANGES, *self.overrides, f"seed={run.seed}"]
        begun = folder.recipe.is_file()
        plan = prepare(Recipe.load(run.recipe, changes), None, folder.path, begun, "cpu", Progress(quiet=True))
        if not plan.finished:
            place = ["--out", str(folder.path), "--device", "cpu"]
            yield ["train", run.recipe, *changes, *place, *(["--resume"] if begun else [])]
        if self.camvid and not (answer.is_file() and answer.stat().st_mtime >= folder.scores.stat().st_mtime):
            answer.unlink(missing_ok=True)
            on = ["--targets", "camvid", "--data", str(self.camvid), "--device", "cpu"]
            yield ["evaluate", str(folder.path), *on, "--out", str(answer)]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Begins `dgss COMMAND` on one thread; what it says is added to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "dgss.cli", *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches this program alone, which then stops each of its own, once
        )


@dataclass
class Work:
    """Runs being made, several at a time. faults: why a run could not be made, one line each."""

    plan: Plan
    faults: dict[Run, str] = field(default_factory=dict)
    busy: dict[Run, tuple[Iterator[list[str]], subprocess.Popen[bytes]]] = field(default_factory=dict)

    def make(self, runs: Iterable[Run]) -> None:
        """Makes all of `runs`; those that are finished cost nothing. Stops its processes when it is interrupted."""
        waiting = deque(runs)
        try:
            while waiting or self.busy:
                if waiting and len(self.busy) < self.plan.jobs:
                    self._go_on(run := waiting.popleft(), self.plan.commands(run))
                    continue
                time.sleep(_POLL)
                for run, (commands, process) in list(self.busy.items()):
                    if process.poll() is None:
                        continue
                    del self.busy[run]
                    if process.returncode:
                        self._fail(run, self._reason(run, process.returncode))
                    elif self._go_on(run, commands):
                        print(self._line(run, len(waiting) + len(self.busy)), flush=True)
        finally:
            for _, process in self.busy.values():
                process.terminate()
            for _, process in self.busy.values():
                process.wait()

    def _go_on(self, run: Run, commands: Iterator[list[str]]) -> bool:
        """Begins the next command of a run; answers whether there was none left."""
        try:
            command = next(commands, None)
        except DgssError as error:
            self._fail(run, " ".join(str(error).split()))
            return False
        if command is not None:
            self.busy[run] = commands, start(command, self._log(run))
        return command is None

    def _fail(self, run: Run, reason: str) -> None:
        self.faults[run] = reason
        print(f"{run}: not run: {reason}", flush=True)

    def _log(self, run: Run) -> Path:
        return self.plan.runs / f"{run}.log"

    def _reason(self, run: Run, code: int) -> str:
        """The last error that the processes of a run told."""
        lines = self._log(run).read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return told[-1] if told else f"it ended with code {code}; {self._log(run)} says more"

    def _line(self, run: Run, left: int) -> str:
        """What a finished run gave, and how long the rest may take if it is as slow as all that are finished."""
        scores = read_scores(self.plan.runs)
        score, each = scores[run], statistics.mean(score.seconds for score in scores.values())
        rest = f"{left} left, about {duration(each * left / self.plan.jobs)}" if left else "none left"
        return f"{run}: source {cell([score.source])}, targets {cell([score.mean])}, {duration(score.seconds)}; {rest}"


def make_all(plan: Plan) -> dict[Run, str]:
    """Makes every run that is asked for; answers why some could not be."""
    if plan.camvid:
        domain("camvid").pairs(plan.camvid, protocol("drawn").view("camvid").split)  # a wrong folder is told at once
    work = Work(plan)
    work.make(Run(name, SEEDS[0]) for name in ROWS)
    there = {run: score for run, score in read_scores(plan.runs).items() if run not in work.faults}
    more = further(there, plan.close, plan.more)
    names = ", ".join(dict.fromkeys(run.recipe for run in more)) or f"none, for want of {next(iter(ROWS))}"
    print(f"seed {SEEDS[0]} is done; seeds {', '.join(map(str, SEEDS[1:]))} of: {names}", flush=True)
    work.make(more)
    return work.faults


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="score every run on the CamVid frames in DIR, too")
    parser.add_argument("--runs", type=Path, default=Plan.runs, metavar="DIR", help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=usable_cores(), metavar="N", help="runs at a time")
    parser.add_argument("--close", type=float, default=Plan.close, metavar="POINTS", help="where more seeds are made")
    parser.add_argument(
        "--more", nargs="+", choices=ROWS, default=[], metavar="RECIPE", help="and of these in any case"
    )
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="passed to each training")
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="page that the table is written into")
    parser.add_argument("--table-only", action="store_true", help="train nothing, write the table of what is there")
    return parser.parse_args(arguments)


def interrupt(*_: object) -> None:
    """SIGTERM ends this program as Ctrl-C does."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Exit code: 1 where a run could not be made, 130 where it was stopped."""
    given = options(arguments)
    plan = Plan(given.runs, given.camvid, max(given.jobs, 1), given.close, given.override, given.more)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        faults = {} if given.table_only else make_all(plan)
        scores = {
            run: score
            for run, score in read_scores(plan.runs).items()
            if not {run, Run(run.recipe, SEEDS[0])} & faults.keys()
        }
        write(given.page, scores, faults, given.machine, plan.options())
    except KeyboardInterrupt:
        print(f"\nstopped; go on with: {shlex.join(['python', 'scripts/ablations.py', *arguments])}", file=sys.stderr)
        return 130
    except DgssError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {given.page}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

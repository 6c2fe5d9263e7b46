"""What a person sees while work goes on: a bar with the time left on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

Advance = Callable[[int, int, str], None]
"""Called as advance(done, total, note)."""

_LINE_EVERY = 10.0  # seconds between plain lines; a bar that took less leaves none


class Progress:
    """Tells lines and shows bars on `stream`; `quiet` keeps all but warnings back. begin: when it was made."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._console = Console(file=stream or sys.stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._quiet = quiet
        self.begin = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        if not self._quiet:
            self._console.print(text)

    def warn(self, text: str) -> None:
        """One line that is also shown when quiet."""
        self._console.print(f"warning: {text}")

    @contextmanager
    def bar(self, title: str) -> Iterator[Advance]:
        """A bar for the work of the block, which calls what it is given as advance(done, total, note)."""
        if self._quiet:
            yield lambda done, total, note: None
        elif not self._console.is_terminal:
            yield _Lines(title, self.say)
        else:
            begin = time.monotonic()
            columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
            notes = TextColumn("{task.fields[note]}")
            with RichProgress(*columns, notes, console=self._console, transient=True) as shown:
                task = shown.add_task(title, total=None, note="")
                yield lambda done, total, note: shown.update(task, completed=done, total=total, note=note)
            end, took = shown.tasks[0], time.monotonic() - begin
            if took >= _LINE_EVERY:
                self.say(_line(title, end.completed, end.total or 0, f"took {duration(took)}", end.fields["note"]))


class _Lines:
    """A bar in plain lines: one at the end and one every few seconds until then."""

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self._title, self._say = title, say
        self._begin = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done - 1  # a resumed training begins in the middle
        if done < total and now - self._last < _LINE_EVERY:
            return
        self._last = now
        left = (now - self._begin) / max(done - self._first, 1) * (total - done)
        pace = f"{duration(left)} left" if done < total else f"took {duration(now - self._begin)}"
        self._say(_line(self._title, done, total, pace, note))


def _line(title: str, done: float, total: float, pace: str, note: str) -> str:
    return f"{title} {done:.0f}/{total:.0f}, {pace}{', ' + note if note else ''}"


def duration(seconds: float) -> str:
    """Seconds as people say them: `8 s`, `2:05 min`, `1:02 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"

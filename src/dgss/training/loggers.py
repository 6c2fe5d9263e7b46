"""The figures of a training, one JSON object a line in `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dgss.files import cannot_write, write_text


class MetricsFile:
    """Appends rows, each with its `step`, counted from 1, and the `seconds` of training until then.

    warn: is told of damaged lines, which are left out.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn

    def keep_until(self, step: int) -> None:
        """Drops the rows after `step`, which a resumed training writes again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row. Raises `DgssError` where the file cannot be written."""
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row of the file, in its order."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        rows = [row for row in map(_row, lines) if row is not None]
        damaged = len(lines) - len(rows)
        if lines and not text.endswith("\n") and _row(lines[-1]) is None:
            damaged -= 1  # cut short by a kill, as happens
        if damaged:
            self._warn(f"{damaged} of {len(lines)} lines of {self.path} are damaged and left out")
        return rows


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    numbers = isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("seconds"), float)
    return row if numbers else None

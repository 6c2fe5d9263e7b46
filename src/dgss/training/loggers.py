"""The figures of a training, one JSON object a line in `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgss.errors import DgssError
from dgss.files import write_text


class MetricsFile:
    """Appends rows, each with its `step`, steps counted from 1. A line cut short by a kill is dropped on reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
            raise DgssError(f"cannot write {self.path}: {error.strerror or error}; free some space") from error

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row of the file, in its order."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # cut short by a kill
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
        return rows

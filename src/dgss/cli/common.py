"""What all commands share: options of one wording, and how a failure is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dgss.errors import DgssError

Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="DIR", help="Folder of the data; NAME=DIR for one domain alone. May be given several times."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


@contextmanager
def foreseen(debug: bool) -> Iterator[None]:
    """Ends with one line on stderr and exit code 1 on a `DgssError` or `OSError`, with 130 after Ctrl-C.

    debug: shows where they came from instead.
    """
    try:
        yield
    except DgssError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt as error:
        if debug:
            raise
        typer.echo(f"\n{error}" if str(error) else "\nstopped", err=True)
        raise typer.Exit(getattr(error, "exit_code", 130)) from None
    except BrokenPipeError:  # the reader of a pipe, `head` for one, has gone; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except OSError as error:  # a place that cannot be read or written, of which no part of the package speaks itself
        if debug:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"error: {where}{error.strerror or error}; `--debug` shows where it came from", err=True)
        raise typer.Exit(1) from None


def roots(data: list[str] | None) -> dict[str, Path] | None:
    """The values of `--data` by domain; the one without a name is `default`. A folder's own name may hold `=`."""
    if not data:
        return None
    found = {}
    for value in data:
        name, equals, folder = value.partition("=")
        named = bool(equals) and not Path(value).exists()
        found[name if named else "default"] = Path(folder if named else value)
    return found


def show_json(values: Mapping[str, Any] | list[Any]) -> None:
    """Prints values as JSON."""
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))


def show_rows(rows: list[tuple[str, ...]]) -> None:
    """Prints rows with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

"""What all commands share: options of one wording, and how a failure is told."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dgss.errors import DataError, DgssError

RunPath = Annotated[
    Path,
    # readable: what is wrong with the path is told as everything else is, not as wrong usage
    typer.Argument(
        metavar="RUN",
        readable=False,
        help="Folder of a run, its model.safetensors, or a published checkpoint as convert takes it.",
    ),
]
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
    found: dict[str, Path] = {}
    for value in data or ():
        name, folder = _named(value)
        if not name or not folder:
            raise DataError(f"--data {value!r} lacks a {'folder' if name else 'name'}; write --data DIR or NAME=DIR")
        if name in found:
            raise DataError(f"--data is given twice for {name}: {found[name]} and {folder}; name one folder")
        found[name] = Path(folder)
    return found or None


def _named(value: str) -> tuple[str, str]:
    """Name and folder of a value of `--data`."""
    from dgss.files import path_errors

    name, equals, folder = value.partition("=")
    with path_errors(Path(value)):
        plain = not equals or bool({"/", os.sep} & set(name)) or Path(value).exists()
    return ("default", value) if plain else (name, folder)


def show_json(values: Mapping[str, Any] | list[Any]) -> None:
    """Prints values as JSON."""
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))


def show_rows(rows: list[tuple[str, ...]]) -> None:
    """Prints rows with aligned columns; on a terminal the last one is wrapped, elsewhere a row stays one line."""
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)][:-1]
    room = shutil.get_terminal_size().columns - sum(widths) if sys.stdout.isatty() else 0
    for *cells, last in rows:
        start = "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines = textwrap.wrap(last, room) if room > 20 else [last]
        typer.echo((start + f"\n{'':{sum(widths)}}".join(lines)).rstrip())


def counted(number: int) -> str:
    """`1 image`, `2 images`."""
    return f"{number} image{'' if number == 1 else 's'}"

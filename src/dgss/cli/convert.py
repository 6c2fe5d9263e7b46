"""`dgss convert`."""

from __future__ import annotations

from typing import Annotated

import typer

from dgss.cli.common import Debug, foreseen


def convert(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A published checkpoint, or hf:owner/repo/file.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME", help="By which it was trained; default: by its keys.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder of the run that is made.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what fits and leave the rest random, in place of an error.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Make a run of a published checkpoint: evaluate and predict then take it as any other."""
    with foreseen(debug):
        typer.echo(f"reading {file}", err=True)
        from dgss.api.convert import convert as run_conversion

        typer.echo(run_conversion(file, recipe, out, strict=not partial).table())

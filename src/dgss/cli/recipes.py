"""`dgss recipes list|show|copy`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dgss.cli.common import AsJson, Debug, foreseen, show_json, show_rows

Name = Annotated[str, typer.Argument(metavar="NAME", help="A recipe of the package.")]


def list_(as_json: AsJson = False, debug: Debug = False) -> None:
    """Name all recipes of the package."""
    with foreseen(debug):
        from dgss.recipes.library import list_recipes

        found = list_recipes()
        if as_json:
            show_json([{"name": recipe.name, "summary": recipe.summary} for recipe in found])
        else:
            show_rows([(recipe.name, recipe.summary) for recipe in found if not recipe.variant])
            if sys.stdout.isatty():  # elsewhere each line is a recipe
                typer.echo("\nvariants, each with one part switched, to see what it is worth:")
            show_rows([(recipe.name, recipe.summary) for recipe in found if recipe.variant])


def show(name: Name, debug: Debug = False) -> None:
    """Print a recipe's file."""
    with foreseen(debug):
        from dgss.recipes.library import show_recipe

        typer.echo(show_recipe(name), nl=False)


def copy(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, or a folder for it.")],
    debug: Debug = False,
) -> None:
    """Write a recipe to a file of your own, to be changed and trained with `dgss train FILE`."""
    with foreseen(debug):
        from dgss.recipes.library import copy_recipe

        typer.echo(f"written: {copy_recipe(name, file)}")

"""The command line: one line a command, each a thin shell over one public function."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dgss.cli import datasets, models, recipes
from dgss.cli.convert import convert
from dgss.cli.doctor import doctor
from dgss.cli.evaluate import evaluate
from dgss.cli.predict import predict
from dgss.cli.train import train

_SUMMARY = "Train on one domain, label every pixel in domains never seen."


class _HelpOption:
    """typer takes `--help` when it is not given through pydantic, which costs more than all else a list needs; a value
    that is a truth value already goes past it."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.default = False
        return option


class _Command(_HelpOption, TyperCommand):
    pass


class _Group(_HelpOption, TyperGroup):
    pass


def _group(text: str | None, **commands: Callable[..., None]) -> typer.Typer:
    """Commands by name; help without colours, which takes a third of the time to appear."""
    group = typer.Typer(
        cls=_Group,
        help=text,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        add_completion=False,
    )
    for name, command in commands.items():
        group.command(name, cls=_Command)(command)
    return group


app = _group(_SUMMARY, train=train, evaluate=evaluate, predict=predict, convert=convert, doctor=doctor)
app.add_typer(
    _group("Recipes of the package: list, show, copy.", list=recipes.list_, show=recipes.show, copy=recipes.copy),
    name="recipes",
)
app.add_typer(_group("Weights of the package and their licences.", list=models.list_), name="models")
app.add_typer(_group("Data sets that can be read or drawn.", list=datasets.list_), name="datasets")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dgss {version('dgss')}")
        raise typer.Exit


@app.callback(help=_SUMMARY)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """The program `dgss`."""
    # threads that wait for each other spin for a moment and then sleep: spinning for long, a training next to other
    # programs crawls; sleeping at once costs a third on an idle machine. GNU's OpenMP reads it when torch is loaded
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient Ctrl-C while Python ends would show its insides

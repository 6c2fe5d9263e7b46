"""`dgss models list`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from dgss.cli.common import AsJson, Debug, foreseen, show_json, show_rows


def list_(as_json: AsJson = False, debug: Debug = False) -> None:
    """Name the weights of the package, with their licences."""
    with foreseen(debug):
        from dgss.api.models import list_models

        found = list_models()
        if as_json:
            show_json([asdict(model) for model in found])
        else:
            for model in found:
                typer.echo(f"{model.name}: {model.summary}")
                show_rows([("  licence", model.licence), ("  made", model.made), ("  used by", model.used_by)])

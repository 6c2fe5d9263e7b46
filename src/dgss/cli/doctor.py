"""`dgss doctor`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from dgss.cli.common import AsJson, Debug, foreseen, show_json


def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Examine this machine: versions, device, memory, cores, extras, write access; with advice for each problem."""
    with foreseen(debug):
        from dgss.api.doctor import doctor as examine

        found = examine()
        if as_json:
            show_json({"healthy": found.healthy, "findings": [asdict(finding) for finding in found.findings]})
        else:
            typer.echo(found.table())
        if not found.healthy:
            raise typer.Exit(1)

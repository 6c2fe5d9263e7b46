"""`dgss evaluate`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dgss.cli.common import AsJson, Data, Debug, Device, RunPath, foreseen, roots, show_json
from dgss.errors import DataError


def evaluate(
    run: RunPath,
    targets: Annotated[
        str | None, typer.Option("--targets", metavar="A,B", help="Domains to score on; default those of its recipe.")
    ] = None,
    data: Data = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="NAME", help="At which size and on which pixels to score: drawn.")
    ] = "drawn",
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Also write the result: .json numbers, .html a page.")
    ] = None,
    as_json: AsJson = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Score a trained model on domains, and print mIoU by domain, their mean and rPD."""
    with foreseen(debug):
        from dgss.files import check_result_file

        names = None if targets is None else _names(targets)
        file = None if out is None else check_result_file(out)
        on = "its source and the targets of its recipe" if names is None else ", ".join(names)
        typer.echo(f"scoring {run} on {on}", err=True)
        from dgss.api.evaluate import evaluate as run_evaluation
        from dgss.training.progress import Progress

        report = run_evaluation(run, names, roots(data), protocol, device, Progress(sys.stderr))
        if as_json:
            show_json(report.to_json())
        else:
            typer.echo(report.table())
        if file is not None:  # after the numbers are shown: a file that cannot be written loses nothing
            from dgss.evaluation.report import write_html

            write_html(file, report) if file.suffix == ".html" else report.save(file)


def _names(targets: str) -> list[str]:
    """The domains of `--targets A,B`, each of which is known."""
    from dgss.data.domains import domain

    names = [domain(name).name for name in map(str.strip, targets.split(",")) if name]
    if not names:
        raise DataError("--targets names no domain; write --targets A,B, or leave it out for those of the recipe")
    return names

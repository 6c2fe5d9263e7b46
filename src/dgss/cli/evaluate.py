"""`dgss evaluate`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dgss.cli.common import AsJson, Data, Debug, Device, RunPath, foreseen, roots, show_json


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
        names = list(filter(None, map(str.strip, targets.split(",")))) if targets is not None else None
        typer.echo(f"scoring {run} on {'the targets of its recipe' if names is None else ', '.join(names)}", err=True)
        from dgss.api.evaluate import check_file
        from dgss.api.evaluate import evaluate as run_evaluation
        from dgss.training.progress import Progress

        file = None if out is None else check_file(out)
        report = run_evaluation(run, names, roots(data), protocol, device, Progress(sys.stderr))
        if as_json:
            show_json(report.to_json())
        else:
            typer.echo(report.table())
        if file is not None:  # after the numbers are shown: a file that cannot be written loses nothing
            from dgss.evaluation.report import write_html

            write_html(file, report) if file.suffix == ".html" else report.save(file)

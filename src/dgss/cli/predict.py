"""`dgss predict`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dgss.cli.common import AsJson, Debug, Device, RunPath, counted, foreseen, show_json


def predict(
    run: RunPath,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Image files, folders of images, or patterns like 'x/*.jpg'."),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="A new folder for the pictures.")],
    as_json: AsJson = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Label images: writes class numbers, an overlay for each image, and one sheet of them all."""
    with foreseen(debug):
        typer.echo(f"labelling with {run}", err=True)
        from dgss.api.predict import predict as run_prediction
        from dgss.training.progress import Progress

        done = run_prediction(run, images, out, device, Progress(sys.stderr))
        if as_json:
            overlays = {str(image): str(overlay) for image, overlay in done.overlays.items()}
            show_json({"folder": str(done.folder), "overlays": overlays, "faults": done.faults})
        elif done.overlays:
            typer.echo(f"{counted(len(done.overlays))} labelled in {done.folder}")
        if done.faults:
            kept = "the others are done" if done.overlays else "nothing is written"
            typer.echo(f"error: {counted(len(done.faults))} could not be labelled (named above); {kept}", err=True)
            raise typer.Exit(1)

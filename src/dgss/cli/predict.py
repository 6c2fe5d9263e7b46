"""`dgss predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dgss.cli.common import AsJson, Debug, Device, foreseen, show_json


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its model.safetensors.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Image files, folders of images, or patterns like 'x/*.jpg'."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for the pictures.")],
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
        else:
            typer.echo(f"{len(done.overlays)} images labelled in {done.folder}")
        if done.faults:
            typer.echo(f"error: {len(done.faults)} images could not be read (named above)", err=True)
            raise typer.Exit(1)

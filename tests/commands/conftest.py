from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from dgss.cli import app
from dgss.streets.write import write_split

# as small as the parts allow: 64 x 64 pixels, one layer each, drawn streets of 64 x 128
TINY = (
    "inference.short_edge=null",
    "size=[64, 64]",
    "drawn={train_images: 3, score_images: 2, size: [64, 128]}",
    "targets=[streets-night]",
    "training.batch_size=1",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "method.width=32",
    "method.heads=2",
    "method.pixel_layers=1",
    "method.decoder_layers=1",
    "method.pixel_ffn=32",
    "method.decoder_ffn=32",
    "method.mask_losses.points=50",
)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streets drawn once for all tests, as a cache folder."""
    cache = tmp_path_factory.mktemp("cache")
    root = cache / "streets" / "128x64"
    write_split(root, "game", "train", 3, (64, 128), workers=0)
    for look in ("game", "night"):
        write_split(root, look, "val", 2, (64, 128), workers=0)
    return cache


@pytest.fixture
def cache(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own with the streets in it; the current folder is the test's."""
    folder = tmp_path / "the cache"
    shutil.copytree(drawn, folder)
    monkeypatch.setenv("DGSS_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def dgss() -> Callable[..., Result]:
    """Runs a command in this process, as `dgss("train", "--dry-run")`."""
    runner = CliRunner()

    def run(*arguments: object) -> Result:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return runner.invoke(app, [str(argument) for argument in arguments])
        finally:
            torch.set_num_threads(before)

    return run


@pytest.fixture(scope="session")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DGSS_CACHE", str(drawn))
        patch.setattr(torch, "get_num_threads", lambda: 1)
        result = CliRunner().invoke(
            app, ["train", "tqdm-mini-streets", *TINY, "training.steps=3", "--out", str(folder)]
        )
    assert result.exit_code == 0, result.output
    return folder

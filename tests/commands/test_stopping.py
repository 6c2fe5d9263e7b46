"""Ctrl-C and SIGTERM: at any moment of a run one line that says how to go on, and the exit code of the signal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.commands.conftest import TINY

Command = Callable[..., Result]
RUN = ("train", "tqdm-mini-streets", *TINY, "training.steps=1", "targets=[]")
PLACES = {
    "drawing": "dgss.api.train._preview",
    "before the first step": "dgss.training.loop.restore_checkpoint",
    "saving the model": "dgss.api.train.save_weights",
    "scoring": "dgss.api.train.score",
    "writing the report": "dgss.api.train.write_html",
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent another way there")
@pytest.mark.parametrize(
    ("place", "number"), [("drawing", signal.SIGINT), *((place, signal.SIGTERM) for place in PLACES)]
)
def test_a_signal_at_any_moment_says_how_to_go_on(
    place: str,
    number: signal.Signals,
    dgss: Command,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(PLACES[place], stop)
        stopped = dgss(*RUN, "--out", tmp_path / "run")
    assert stopped.exit_code == 128 + number, stopped.output
    assert stopped.stderr.splitlines()[-1] == f"stopped; go on with: dgss train --resume --out {tmp_path / 'run'}"
    assert signal.getsignal(number) is before
    assert dgss("train", "--resume", "--out", tmp_path / "run").exit_code == 0

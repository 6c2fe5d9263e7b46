"""How many files a reader opens to follow one training step: counted on a traced run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import dgss

PACKAGE = Path(dgss.__file__).parent
WHOLE_PATH = 28  # from `dgss.train` to the first gradient
MODEL_AND_STEP = 14  # the model and one step alone
MODEL_FOLDERS = ("methods", "towers", "decoder", "losses", "interfaces.py")
STEP_FILES = ("training/loop.py", "training/optimizer.py")


class StopHere(Exception):  # noqa: N818
    """Ends the run once the first gradient has flowed."""


@pytest.fixture
def files_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setenv("DGSS_CACHE", str(tmp_path / "cache"))
    recipe = dgss.Recipe.load("tqdm-mini-streets").with_overrides(
        ["targets=[]", "drawn.train_images=2", "drawn.score_images=1", "training.steps=1", "training.batch_size=1"]
    )
    dgss.train(recipe, out=tmp_path / "first")  # draws the streets and imports everything

    ran: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            path = Path(frame.f_code.co_filename)
            # drawing is how the drawn data come to be; with a data set on the disk none of it runs
            if path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / "streets"):
                ran.add(path.relative_to(PACKAGE).as_posix())

    def stop(*_: Any) -> None:
        raise StopHere

    sys.setprofile(note)
    try:
        dgss.train(recipe, out=tmp_path / "second", on_step=stop)
    except StopHere:
        pass
    finally:
        sys.setprofile(None)
    return ran


def test_a_step_stays_within_its_budget_of_files(files_of_a_run: set[str]) -> None:
    model = {name for name in files_of_a_run if name.startswith(MODEL_FOLDERS) or name in STEP_FILES}
    assert len(files_of_a_run) <= WHOLE_PATH, "\n".join(sorted(files_of_a_run))
    assert len(model) <= MODEL_AND_STEP, sorted(model)
    assert {"methods/tqdm.py", "decoder/mask_decoder.py", "losses/mask_losses.py"} <= model

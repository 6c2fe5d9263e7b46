"""`dgss evaluate` and `dgss predict` on a finished run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import dgss as package
from dgss.api.datasets import Data
from dgss.api.evaluate import score
from dgss.errors import DgssError, WeightsError
from dgss.evaluation.protocols import protocol
from dgss.files import FolderLock, RunFolder
from dgss.training.progress import Progress
from tests.commands.test_train import fails
from tests.parts.standin import write_camvid

Command = Callable[..., Result]


def test_evaluate_gives_the_numbers_of_the_training(dgss: Command, cache: Path, trained: Path) -> None:
    result = dgss("evaluate", trained, "--json")
    assert result.exit_code == 0, result.output
    found, before = json.loads(result.stdout), json.loads((trained / "report.json").read_text(encoding="utf-8"))
    assert found["source"] == before["source"] and found["targets"] == before["targets"]
    assert found["per_class"] == before["per_class"]


def test_evaluate_on_other_domains_folds_the_classes(dgss: Command, cache: Path, trained: Path, tmp_path: Path) -> None:
    write_camvid(tmp_path / "my data" / "camvid")
    result = dgss("evaluate", trained, "--targets", "camvid,streets-night", "--data", tmp_path / "my data")
    assert result.exit_code == 0, result.output
    assert "camvid" in result.stdout and "streets-night" in result.stdout
    named = dgss(
        "evaluate", trained, "--targets", "camvid", "--data", f"camvid={tmp_path / 'my data'}", "--out", "r.json"
    )
    assert named.exit_code == 0, named.output
    scores = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert set(scores["targets"]) == {"camvid"} and scores["source"] is None


def test_evaluate_refuses_in_one_line(dgss: Command, trained: Path, tmp_path: Path) -> None:
    fails(dgss("evaluate", trained, "--targets", "streets-nite"), "did you mean 'streets-night'")
    fails(dgss("evaluate", trained, "--targets", "camvid"), "camvid needs a folder")
    fails(dgss("evaluate", tmp_path / "nothing"), "is no run")
    fails(dgss("evaluate", trained, "--protocol", "drwan"), "did you mean 'drawn'")
    (tmp_path / "r.json").write_text("mine", encoding="utf-8")
    fails(dgss("evaluate", trained, "--out", tmp_path / "r.json"), "exists")
    fails(dgss("evaluate", trained, "--out", tmp_path / "r.txt"), ".json")
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == "mine"


def test_a_model_of_a_run_that_has_not_ended_or_is_damaged(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(trained / "recipe.yaml", folder)
    with pytest.raises(WeightsError, match=r"has not ended; go on with: dgss train --resume"):
        package.load_model(folder)
    content = bytearray((trained / "model.safetensors").read_bytes())
    content[-9] ^= 4
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        package.load_model(folder)


def test_a_loaded_model_answers_as_the_public_page_says(trained: Path) -> None:
    model = package.load_model(trained / "model.safetensors", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (40, 72, 3), np.uint8)
    answer = model.predict(image)
    assert answer.labels.shape == (40, 72) and answer.labels.max() < 19
    assert answer.scores is not None and answer.scores.shape == (19, 40, 72)
    again = package.load_model(trained).predict(image)
    assert np.array_equal(answer.labels, again.labels) and np.array_equal(answer.scores, again.scores)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    (folder / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "b.jpg")
    Image.fromarray(pixels[..., 0]).save(folder / "a.PNG", format="PNG")
    Image.fromarray(pixels[:36]).save(folder / "more" / "b.png")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder


def test_predict_takes_files_folders_and_patterns(dgss: Command, trained: Path, photos: Path, tmp_path: Path) -> None:
    result = dgss("predict", trained, photos, photos / "mo*" / "*.png", photos / "b.jpg", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    stems = {"a", "b", "b_2"}
    assert names == {f"{stem}_{kind}.png" for stem in stems for kind in ("labels", "overlay")} | {"contact.png"}
    with Image.open(tmp_path / "out" / "b_2_labels.png") as labels:
        assert labels.mode == "P" and labels.size == (80, 36)


def test_predict_names_broken_images_and_does_the_others(
    dgss: Command, trained: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    (photos / "empty.png").touch()
    Image.new("RGB", (80, 9)).save(photos / "low.png")
    result = dgss("predict", trained, photos, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert len(found["overlays"]) == 2 and len(found["faults"]) == 3
    for name, fault in zip(("broken.jpg", "empty.png", "low.png"), found["faults"], strict=True):
        assert name in fault and fault in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_refuses_in_one_line(dgss: Command, trained: Path, photos: Path, tmp_path: Path) -> None:
    fails(dgss("predict", trained, photos, "--out", photos), "not empty")
    fails(dgss("predict", trained, tmp_path / "none", "--out", tmp_path / "out"), "no image there")
    fails(dgss("predict", trained, photos, "--out", photos / "notes.txt" / "x"), "cannot write")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("named", [True, False])
def test_folders_of_the_user_are_read_and_never_drawn_into(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path, named: bool
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(cache / "streets" / "128x64", mine)
    (mine / "streets-night" / "index.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*")}
    data = f"streets-night={mine / 'streets-night'}" if named else mine
    result = dgss("evaluate", trained, "--targets", "streets-night", "--data", data, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == {"streets-night": 2}
    assert before == {path: path.stat().st_mtime_ns for path in mine.rglob("*")}
    shutil.rmtree(mine / "streets-night" / "leftImg8bit" / "val")
    fails(dgss("evaluate", trained, "--targets", "streets-night", "--data", data), "leave --data out")
    assert not (mine / "streets-night" / "leftImg8bit" / "val").exists()


def test_scoring_keeps_no_pictures(cache: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = []
    monkeypatch.setattr("dgss.api.evaluate.evaluate_domain", lambda _, data, *__, **___: rooms.append(data._room))
    sets = Data({}, (64, 128), Progress(quiet=True))
    score(package.load_model(trained), ["streets-game"], sets, protocol("drawn"), 2, Progress(quiet=True))
    assert rooms == [0]


def test_numbers_are_shown_before_a_file_that_fails(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DgssError("the disk is full")

    monkeypatch.setattr("dgss.evaluation.report.write_text", full)
    result = dgss("evaluate", trained, "--targets", "streets-night", "--out", tmp_path / "r.json")
    fails(result, "the disk is full")
    assert "streets-night" in result.stdout and "mean of targets" in result.stdout
    (tmp_path / "file").touch()
    fails(dgss("evaluate", trained, "--out", tmp_path / "file" / "r.json"), "no folder")
    fails(dgss("evaluate", trained, "--out", tmp_path / f"{'x' * 300}.json"), "name too long")


def test_predict_with_wrong_words_leaves_nothing(dgss: Command, trained: Path, photos: Path, tmp_path: Path) -> None:
    fails(dgss("predict", tmp_path / "nothing", photos, "--out", tmp_path / "out"), "is no run")
    fails(dgss("predict", trained, tmp_path / "a**b.jpg", "--out", tmp_path / "out"), "a**b.jpg")
    fails(dgss("predict", trained, photos, "--out", tmp_path / ("x" * 300)), "name too long")
    assert not (tmp_path / "out").exists()


def test_what_a_killed_process_left_does_not_fill_a_folder(tmp_path: Path) -> None:  # mutation: .part counted
    run = RunFolder(tmp_path / "run")
    (run.path / "checkpoints").mkdir(parents=True)
    old, fresh = run.path / "checkpoints" / ".a.safetensors.x1.part", run.path / ".recipe.yaml.x2.part"
    for file in (old, fresh, run.path / ".lock"):
        file.touch()
    os.utime(old, (0, 0))
    with FolderLock(run.path):
        assert not old.exists() and fresh.exists()
    (run.path / "checkpoints").rmdir()
    assert run.begun(resume=False) is False
    with pytest.raises(DgssError, match="name too long"):
        RunFolder(tmp_path / ("x" * 300)).begun(resume=False)

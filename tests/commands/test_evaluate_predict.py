"""`dgss evaluate` and `dgss predict` on a finished run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import dgss as package
from dgss.api.datasets import Data
from dgss.api.evaluate import score
from dgss.api.predict import _Sheet
from dgss.errors import DgssError, WeightsError
from dgss.evaluation.protocols import PROTOCOLS, protocol
from dgss.files import FolderLock, RunFolder
from dgss.inference.predictor import Segmentation
from dgss.labels import label_space
from dgss.recipes.schema import Recipe
from dgss.streets.worker import draw_in_processes
from dgss.streets.write import Job
from dgss.training.progress import Progress
from dgss.weights.store import read_weights, save_weights
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
    taken = dgss("evaluate", trained, "--out", tmp_path / "r.json")
    fails(taken, "exists")
    assert "scoring" not in taken.stderr, "nothing is begun"
    fails(dgss("evaluate", trained, "--out", tmp_path / "r.txt"), ".json")
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ("", "--targets names no domain"),
        (" , ", "--targets names no domain"),
        ("fog,,camvid", "no domain is called 'fog'"),
        ("streets-nigth,camvid", "did you mean 'streets-night'"),
    ],
)
def test_targets_that_name_nothing_are_one_line(dgss: Command, trained: Path, targets: str, told: str) -> None:
    result = dgss("evaluate", trained, "--targets", targets)
    fails(result, told)
    assert "scoring" not in result.stderr, "nothing is begun"


def test_a_target_given_twice_is_scored_once(dgss: Command, cache: Path, trained: Path) -> None:
    result = dgss("evaluate", trained, "--targets", "streets-night, ,streets-night", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["images"] == {"streets-night": 2}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (("camvid=.", "camvid=there"), "--data is given twice for camvid: . and there"),
        ((".", "there"), "--data is given twice for default"),
        (("",), "lacks a folder"),
        (("camvid=",), "lacks a folder"),
        (("=there",), "lacks a name"),
        (("streets-nigth=there",), "did you mean 'streets-night'"),
        (("nosuchname=there",), "no domain is called 'nosuchname': known: camvid"),
        (("nosuchfolder",), "there is no folder"),
        (("no/such=folder",), "there is no folder"),
        (("camvid=nosuchfolder",), "to read camvid from"),
        (("x" * 300,), "x to read data from|name too long"),
    ],
)
def test_data_that_name_nothing_are_one_line(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path, data: tuple[str, ...], told: str
) -> None:  # mutation: the last one wins; a mistyped folder is passed over and the streets are drawn
    (tmp_path / "there").mkdir()
    options = [word for value in data for word in ("--data", value)]
    result = dgss("evaluate", trained, "--targets", "streets-night", *options)
    fails(result)
    assert re.search(told, result.stderr), result.stderr


def test_data_that_a_run_was_trained_with_may_be_gone(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path
) -> None:  # mutation: as strict as with what is given now
    shutil.copytree(trained, tmp_path / "run")
    recipe = Recipe.load(trained / "recipe.yaml").change(data=tmp_path / "gone")
    (tmp_path / "run" / "recipe.yaml").write_text(recipe.dump(), encoding="utf-8")
    assert dgss("evaluate", tmp_path / "run", "--targets", "streets-night").exit_code == 0
    fails(dgss("evaluate", tmp_path / "run", "--targets", "camvid"), f"is not in {tmp_path / 'gone'}")


def test_the_help_names_every_protocol_at_once() -> None:  # mutation: a protocol that nobody is told of; imports
    code = "import sys; from dgss.cli import app; app(['evaluate', '--help'], standalone_mode=False)"
    code += "; print([name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    shown = " ".join(done.stdout.split())
    told = shown.partition("on which pixels to score: ")[2].partition(".")[0]
    assert told.split(", ") == list(PROTOCOLS)
    assert shown.endswith("[]")


def test_what_is_no_run_is_one_line_with_the_nearest(
    dgss: Command, trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs / "night")
    (runs / "empty").mkdir()
    for command in (("evaluate",), ("predict", photos, "--out", tmp_path / "out")):

        def run(place: object, command: tuple[object, ...] = command) -> Result:
            return dgss(command[0], place, *command[1:])

        fails(run(runs / "nihgt"), f"did you mean '{runs / 'night'}'?")
        fails(run(runs), "is no run", "night")
        fails(run(runs / "empty"), "is no run", "night")
        fails(run(photos / "notes.txt"), "no file of weights")
        fails(run(""), "is no run")
        long = run("x" * 300)
        fails(long)
        assert re.search("name too long; name another|is no run", long.stderr)
    with monkeypatch.context() as patch:
        patch.chdir(runs)
        fails(dgss("evaluate", "qqq"), "qqq is no run", "; runs beside it: night")
        fails(dgss("evaluate", "."), ". is no run", "; runs in it: night")
    assert not (tmp_path / "out").exists()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dgss.api.load._weights", refuse)
    fails(dgss("predict", runs / "night", photos, "--out", tmp_path / "out"), "night: Permission denied; name another")
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # typer would end with 2
    fails(dgss("evaluate", runs / "night"), "Permission denied")


def test_weights_that_are_no_numbers_are_refused(trained: Path, tmp_path: Path) -> None:
    stored = read_weights(trained / "model.safetensors")
    name = next(name for name, values in stored.tensors.items() if values.is_floating_point())
    stored.tensors[name].view(-1)[0] = float("nan")
    save_weights(tmp_path / "model.safetensors", stored.tensors, stored.recipe, stored.step)
    with pytest.raises(WeightsError, match=f"no numbers in 1 of .* first {re.escape(name)}") as error:
        package.load_model(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model, _: package.evaluate(model, 3), "targets is 3"),
        (lambda model, _: package.evaluate(model, [3]), "no domain is called 3"),
        (lambda model, _: package.evaluate(model, []), "no domain is named"),
        (lambda model, _: package.evaluate(model, "camvid", data=5), "data is of type int"),
        (lambda model, _: package.evaluate(5, "camvid"), "the run is of type int"),
        (lambda model, out: package.predict(model, None, out), "images is None"),
        (lambda model, out: package.predict(model, [None], out), "an image is of type NoneType"),
        (lambda model, _: package.predict(model, "a.png", None), "out is of type NoneType"),
        (lambda _, __: package.load_model(5), "the run is of type int"),
        (lambda _, __: package.load_model(""), "the run is an empty word"),
    ],
)
def test_wrong_types_are_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[object, Path], object], told: str
) -> None:  # mutation: 'int' object is not iterable
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("a.png")
    with pytest.raises(DgssError, match=told):
        call(package.load_model(trained), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_street_is_drawn_again(dgss: Command, cache: Path, trained: Path) -> None:
    """mutation: only the beginning and the end of a file looked at"""
    for kind in ("leftImg8bit", "labelTrainIds"):
        file = next(cache.rglob(f"*005001_*_{kind}.png"))
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 8]) + whole[len(whole) // 2 + 1 :])
        result = dgss("evaluate", trained, "--targets", file.parents[3].name, "--json")
        assert result.exit_code == 0, result.output
        assert file.read_bytes() == whole


def test_a_process_that_draws_tells_our_errors_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = Job(tmp_path / "file" / "streets-game", "game", "val", (64, 64))
    with pytest.raises(DgssError, match=r"^cannot write .*Not a directory"):  # mutation: "a process ... failed: dgss."
        list(draw_in_processes(job, [0], 1))


def test_too_little_memory_is_one_line(
    dgss: Command, cache: Path, trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("dgss.api.evaluate.evaluate_domain", full)
        fails(dgss("evaluate", trained, "--targets", "streets-night"), "memory", "inference.window")
    with monkeypatch.context() as patch:
        patch.setattr("dgss.api.load.load_strictly", full)
        fails(dgss("evaluate", trained), "memory", "another device")
    real = Segmentation.overlay
    monkeypatch.setattr(Segmentation, "overlay", lambda self, **k: full() if self.image[0, 0, 0] else real(self, **k))
    Image.new("RGB", (64, 64)).save(photos / "black.png")
    Image.new("RGB", (64, 64), "white").save(photos / "white.png")
    result = dgss("predict", trained, photos / "black.png", photos / "white.png", "--out", tmp_path / "out")
    fails(result, "white.png: out of memory", "1 image could not be labelled")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"black_labels.png", "black_overlay.png", "contact.png"}


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


def test_predict_counts_in_words_and_writes_nothing_where_nothing_can_be_read(
    dgss: Command, trained: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "above" / "out"
    (photos / "empty.png").touch()
    (photos / "none.png").touch()
    one = dgss("predict", trained, photos / "empty.png", "--out", out)
    fails(one, "error: 1 image could not be labelled (named above); nothing is written")
    fails(dgss("predict", trained, photos / "empty.png", photos / "none.png", "--out", out), "2 images could not")
    assert not out.parent.exists(), "mutation: the folder is made first"
    fails(dgss("predict", trained, photos / "b.jpg", photos / "empty.png", "--out", out), "others are done")
    done = dgss("predict", trained, photos / f"{'n' * 240}.jpg", "--out", tmp_path / "long")
    fails(done, "no image there")
    (photos / "b.jpg").rename(photos / f"{'n' * 240}.jpg")
    done = dgss("predict", trained, photos / f"{'n' * 240}.jpg", "--out", tmp_path / "long")
    assert done.exit_code == 0 and "\n1 image labelled in" in f"\n{done.stdout}"


def test_the_sheet_names_its_pictures() -> None:  # mutation: no name, a long name over the next picture
    def sheet(*names: str, size: tuple[int, int] = (30, 40)) -> np.ndarray:
        made = _Sheet(label_space("cityscapes19"))
        image = np.full((*size, 3), 90, np.uint8)
        answer = Segmentation(np.zeros(size, np.uint8), None, label_space("cityscapes19"), image)
        for name in names:
            made.add(name, answer, image)
        return made.compose()

    def ink(picture: np.ndarray) -> np.ndarray:
        return (picture < 200).all(-1)

    plain, named = sheet("", ""), sheet("a street.png", "straße.png")
    assert plain.shape == named.shape
    rows, columns = np.nonzero(ink(named) & ~ink(plain))
    below = np.nonzero(ink(plain)[:, 20])[0][0] + 180  # the picture is 240 x 180 there
    assert rows.min() >= below and rows.max() < below + 20
    assert (columns < 100).any() and ((columns > 490) & (columns < 600)).any() and not ink(named)[:, -8:].any()
    long = sheet("long " * 90, "b")
    band = ink(long)[below : below + 20]
    assert band[:, 400:488].any() and not band[:, 488:496].any(), "the middle is left out"
    assert len(sheet("a", size=(4000, 100))) < 450 and sheet("a").shape[1] < 520


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
    assert "3 images could not be labelled (named above); the others are done" in result.stderr
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

"""`dgss train` from end to end, and everything a user can do wrong with it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import Result

from dgss.api.load import load_model
from dgss.api.train import train
from dgss.errors import DgssError, RecipeError
from dgss.files import FolderLock
from dgss.methods.mask2former import Mask2FormerSettings
from dgss.recipes.schema import Recipe
from dgss.training.progress import Progress
from dgss.weights.store import read_weights
from tests.commands.conftest import TINY
from tests.parts.standin import write_camvid, write_streets

Command = Callable[..., Result]
NAME = "tqdm-mini-streets"
ROOT = Path(__file__).parents[2]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (read_weights(folder / "model.safetensors").tensors for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def fails(result: Result, *expected: str) -> None:
    """Exit code 1, one line on stderr with what is expected in it, no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    for text in expected:
        assert text in result.stderr


def test_a_run_holds_all_that_is_promised(trained: Path) -> None:
    recipe = Recipe.load(trained / "recipe.yaml")
    assert (recipe.name, recipe.training.steps, recipe.targets) == (NAME, 3, ("streets-night",))
    assert [json.loads(line)["step"] for line in (trained / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert sorted(path.name for path in (trained / "checkpoints").glob("*.safetensors"))[-1] == "000003.safetensors"
    assert sorted(path.name for path in (trained / "predictions").iterdir()) == [
        "streets-game.png",
        "streets-night.png",
    ]
    assert (trained / "preview.png").stat().st_size > 1000
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "streets-night" in page and "http://" not in page.replace("http://www.w3.org", "")
    scores = json.loads((trained / "report.json").read_text(encoding="utf-8"))
    assert {
        "source",
        "targets",
        "mean",
        "rpd",
        "source_name",
        "seconds",
        "peak_gb",
        "seed",
        "protocol",
    } <= scores.keys()
    assert scores["source_name"] == "streets-game" and list(scores["targets"]) == ["streets-night"]
    assert 0 < scores["seconds"] < 600 and 0.1 < scores["peak_gb"] < 16
    assert not list(trained.rglob("*.part"))


@pytest.mark.parametrize("name", [NAME, "zero-shot-mini-streets"])
def test_a_run_without_any_step_is_whole(name: str, dgss: Command, cache: Path, tmp_path: Path) -> None:
    """Nothing is trained, all else is as ever. Broken by an optimizer that wants parameters."""
    small = [entry for entry in TINY if name == NAME or not entry.startswith("method.")]
    given, out = [*small, "drawn.train_images=9", "training.steps=0"], tmp_path / "run"
    result = dgss("train", name, *given, "--out", out)
    assert result.exit_code == 0, result.output
    stored, built = read_weights(out / "model.safetensors"), Recipe.load(name, given).build().state_dict()
    assert stored.step == 0 and stored.tensors.keys() == built.keys()
    assert all(torch.equal(value, stored.tensors[key]) for key, value in built.items())
    assert len(list((cache / "streets" / "128x64").rglob("train/**/*_leftImg8bit.png"))) == 4, "drawn for the preview"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h2>Training</h2>" not in page and "Trained on" not in page
    scores = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert scores["source"] is not None and scores["source_name"] is None
    assert train(resume=True, out=out, progress=Progress(quiet=True)).history == []
    assert "is finished already" in dgss("train", "--resume", "--out", out).stdout
    (out / "model.safetensors").write_bytes(b"broken")
    fails(dgss("train", "--resume", "--out", out), "model.safetensors is damaged", "train anew with another --out")


def test_json_stands_alone_on_stdout_and_a_finished_run_is_answered_as_it_is(dgss: Command, trained: Path) -> None:
    result = dgss("train", "--resume", "--out", trained, "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert scores["path"] == str(trained) and scores["source_name"] == "streets-game"
    assert "finished" in result.stderr
    typed = f"dgss train --resume --out {shlex.quote(str(trained))}"
    assert result.stderr.splitlines()[0] == typed


def test_an_existing_folder_is_left_as_it_is(dgss: Command, trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    fails(dgss("train", NAME, *TINY, "--out", trained), "--resume", "another folder")
    fails(dgss("train", NAME, *TINY, "training.steps=4", "--out", trained, "--resume"), "training.steps was 3, is 4")
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}


def test_a_folder_of_something_else_is_not_resumed_in(dgss: Command, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.txt").write_text("x", encoding="utf-8")
    fails(dgss("train", "--resume", "--out", tmp_path / "photos"), "holds no run")
    fails(dgss("train", "--out", tmp_path / "photos" / "x.txt"), "is a file")
    fails(dgss("train", "--out", tmp_path / "photos" / "x.txt" / "run", *TINY), "cannot write")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["x.txt"]


@pytest.fixture
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps a test of what may not be trained from training for minutes where it fails."""
    monkeypatch.setattr("dgss.api.train._fit", lambda *_: pytest.fail("a training was begun"))


@pytest.mark.usefixtures("nothing_is_trained")
def test_resuming_where_no_run_is_begins_none(dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "typo"):
        fails(dgss("train", "--resume", "--out", folder), f"{folder} holds no run to go on with")
        fails(dgss("train", NAME, "--resume", "--out", folder), f"{folder} holds no run to go on with")
    fails(dgss("train", "--resume"), f"{Path('runs', NAME)} holds no run to go on with (there is no such folder)")
    with pytest.raises(DgssError, match="typo holds no run to go on with"):
        train(resume=True, out="typo")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not list((tmp_path / "empty").iterdir())


def test_a_run_in_the_usual_folder_is_resumed_with_its_own_recipe(
    dgss: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, Path("runs", NAME))
    result = dgss("train", "--resume")
    assert result.exit_code == 0, result.output
    assert "is finished already; to train anew remove it or name another with --out" in result.stdout
    assert train(resume=True, progress=Progress(quiet=True)).recipe.training.steps == 3


def test_a_folder_that_may_not_be_read_is_no_wrong_usage(
    dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    fails(dgss("train", "--out", tmp_path / "photos"), "is no folder that you may write in")
    fails(dgss("train", "--out", "~nobody-of-this-name/run"), "cannot use ~nobody-of-this-name")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_begins_once_and_then_goes_on(tmp_path: Path) -> None:
    def told(demo: str) -> str:
        command = ["make", "--dry-run", "demo", f"DEMO={demo}"]
        lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        return next(line.partition('" train ')[2] for line in lines if " train " in line)

    demo = tmp_path / "a demo"
    assert told(str(demo)) == f'{NAME} --out "{demo}"'
    demo.mkdir()
    (demo / "recipe.yaml").touch()
    assert told(str(demo)) == f'--resume --out "{demo}"'


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_cleaning_leaves_the_runs() -> None:  # mutation: `rm -rf runs`
    command = ["make", "--dry-run", "clean"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "build" in told and not any(word.startswith("runs") for word in told)


def test_a_folder_in_use_is_refused(dgss: Command, cache: Path, tmp_path: Path) -> None:
    with FolderLock(tmp_path / "run"):
        fails(dgss("train", *TINY, "training.steps=1", "--out", tmp_path / "run"), "in use by another process")


def test_all_faults_of_a_recipe_come_at_once_and_nothing_is_written(dgss: Command, tmp_path: Path) -> None:
    result = dgss("train", NAME, "training.stpes=3", "method.witdh=1", "--out", tmp_path / "run")
    fails(result, "did you mean training.steps?", "did you mean method.width?")
    fails(dgss("train", "tqdm-mini-street"), "did you mean 'tqdm-mini-streets'")
    fails(dgss("train", NAME, "--data", "camvit=x"), "no domain is called 'camvit': did you mean 'camvid'")
    fails(dgss("train", "--device", "gpu"), "no device is called 'gpu'")
    assert not (tmp_path / "run").exists()


def test_data_that_are_missing_are_told_before_the_folder_is_made(
    dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(dgss("train", "tqdm-mini-camvid"), "--data DIR")
    fails(dgss("train", "tqdm-mini-camvid", "--data", tmp_path), "train.txt")
    fails(dgss("train", NAME, "targets=[camvid]"), "camvid needs a folder")
    dry = dgss("train", NAME, *TINY, "targets=[camvid]", "--dry-run")
    fails(dry, "camvid needs a folder")
    assert "parameters:" not in dry.stdout, "all that is wrong is told before time is spent"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_is_trained")
def test_labels_that_make_no_sense_are_told_before_the_folder_is_made(
    dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken by a look at the first pairs alone, and by one that begins where the training does."""
    monkeypatch.setenv("DGSS_CACHE", str(tmp_path / "cache"))
    frames = tmp_path / "camvid"
    for split in ("train", "test"):
        write_camvid(frames, 40, split=split)
    command = ("train", NAME, *TINY, "source=camvid", "targets=[]", "--data", frames, "--out", tmp_path / "run")
    label = frames / "train" / "labels" / "f39.png"  # the last
    Image.new("L", (48, 36), 77).save(label)
    for dry in ((), ("--dry-run",)):
        fails(dgss(*command, *dry), f"{label}: value 77 in 1728 pixels", "allowed: 0..11, 255", "camvid")
    Image.new("L", (36, 48), 3).save(label)
    fails(dgss(*command), "f39.jpg is 48x36, its label", "is 36x48", "take both from one archive")
    streets = write_streets(tmp_path / "mine")
    write_streets(tmp_path / "mine", split="val")
    own = ("train", NAME, *TINY, "targets=[]", "--out", tmp_path / "run", "--data", f"streets-game={streets}")
    Image.new("L", (64, 32), 19).save(next((streets / "gtFine" / "train").rglob("*_gtFine_labelTrainIds.png")))
    fails(dgss(*own), "value 19 in 2048 pixels")
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


WRONG_NAMES = {
    "tqdm-mini-street": "no recipe is called 'tqdm-mini-street'",
    "a run": "a run is the folder of a run, not a recipe; go on with: dgss train --resume --out 'a run'",
    "x" * 300: "File name too long",
    "none.yaml": "no recipe file none.yaml",
    "--out=a run": "a run is not empty",
    "--resume --out=typo": "typo holds no run",
}


def test_a_name_that_is_wrong_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "recipe.yaml").touch()
    code = (
        "import sys\n"
        "from dgss.cli import app\n"
        f"for name in {list(WRONG_NAMES)!r}:\n"
        "    arguments = name.split(' ', 1) if name.startswith('--resume') else [name]\n"
        "    try:\n        app(['train', *arguments])\n"
        "    except SystemExit as end:\n        assert end.code == 1\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    told = done.stderr.splitlines()
    assert done.returncode == 0 and len(told) == len(WRONG_NAMES), done.stderr
    for line, expected in zip(told, WRONG_NAMES.values(), strict=True):
        assert line.startswith("error: ") and expected in line
    assert [path.name for path in tmp_path.iterdir()] == ["a run"]


def test_an_override_may_be_longer_than_the_name_of_a_file(dgss: Command) -> None:
    fails(dgss("train", f"targets=[{', '.join(['streets-nigth'] * 30)}]"), "did you mean 'streets-night'")


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_run_stays_in_the_folder_of_runs(dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("..", ".", "a/b", "../a", "x" * 300):
        fails(dgss("train", NAME, *TINY, f"name={name}"), "name = ")
    assert [path.name for path in tmp_path.iterdir()] == ["here"] and not list((tmp_path / "here").iterdir())


@pytest.mark.usefixtures("nothing_is_trained")
def test_arguments_of_a_wrong_type_are_named() -> None:
    wrong: dict[str, object] = {"recipe": 3, "out": 3, "data": 5, "resume": "yes", "device": 0}
    for name, value in wrong.items():
        with pytest.raises(DgssError, match=f"^{name} is "):
            train(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(DgssError, match=r"^on_step is 3"):
        train(on_step=3)  # type: ignore[arg-type]
    with pytest.raises(DgssError, match="File name too long"):
        train("x" * 300)


def test_usage_errors_keep_their_own_exit_code(dgss: Command) -> None:
    assert dgss("train", "--stpes").exit_code == 2
    assert dgss("trian").exit_code == 2


def test_debug_shows_where_an_error_came_from(dgss: Command) -> None:
    result = dgss("train", "nothing", "--debug")
    assert result.exit_code == 1 and "no recipe is called" in str(result.exception)


def test_a_dry_run_shows_origins_and_costs_and_writes_nothing(
    dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DGSS_CACHE", str(tmp_path / "cache"))
    result = dgss("train", NAME, *TINY, "--dry-run")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert rows["training.batch_size"].endswith("1  (command line)")
    assert rows["source"].endswith(f"streets-game  ({NAME})")
    assert rows["training.optimizer.eps"].endswith("(default)")
    for fact in ("parameters:", "memory:", "time:", "measured"):
        assert fact in rows
    assert not list(tmp_path.iterdir())
    found = json.loads(dgss("train", NAME, *TINY, "--dry-run", "--json").stdout)
    assert found["recipe"]["source"] == {"value": "streets-game", "origin": NAME}
    assert 0 < found["estimate"]["trained"] < found["estimate"]["total"]


def test_a_dry_run_notes_an_occupied_usual_folder_and_refuses_one_that_is_named(
    dgss: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, Path("runs", NAME))
    result = dgss("train", *TINY, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"note: {Path('runs', NAME)} is not empty" in result.stdout and "parameters:" in result.stdout
    named = dgss("train", *TINY, "--dry-run", "--out", Path("runs", NAME))
    fails(named, "is not empty")
    assert "parameters:" not in named.stdout
    fails(dgss("train", *TINY), "is not empty")


def test_weights_that_are_damaged_are_made_again_from_the_checkpoint(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path
) -> None:  # mutation: a finished run is answered by its scores alone
    copied = tmp_path / "copy"
    shutil.copytree(trained, copied)
    content = bytearray((trained / "model.safetensors").read_bytes())
    content[-9] ^= 4
    (copied / "model.safetensors").write_bytes(content)
    result = dgss("train", "--resume", "--out", copied)
    assert result.exit_code == 0, result.output
    told = [line for line in result.stdout.splitlines() if line.startswith("warning: ")]
    assert len(told) == 1 and "model.safetensors is damaged" in told[0] and "checkpoint of step 3" in told[0]
    assert same_weights(copied, trained) and (copied / "report.json").is_file()


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize("left", ["no checkpoint", "a damaged one"])
def test_weights_that_are_damaged_without_a_whole_checkpoint_are_an_error(
    left: str, dgss: Command, trained: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(trained, copied)
    (copied / "model.safetensors").write_bytes(b"broken")
    if left == "no checkpoint":
        shutil.rmtree(copied / "checkpoints")
    for path in copied.glob("checkpoints/*.safetensors"):
        path.write_bytes(b"broken")
    result = dgss("train", "--resume", "--out", copied)
    fails(result, "model.safetensors is damaged", f"no whole checkpoint in {copied / 'checkpoints'}", "--out")
    assert (copied / "report.json").is_file(), "mutation: the scores are removed first"


def test_a_corrupt_checkpoint_gives_way_and_two_are_an_error(dgss: Command, cache: Path, tmp_path: Path) -> None:
    run = ["train", *TINY, "training.steps=4", "--out", tmp_path / "run"]
    assert dgss(*run).exit_code == 0
    (tmp_path / "whole").mkdir()
    (tmp_path / "run" / "model.safetensors").rename(tmp_path / "whole" / "model.safetensors")
    (tmp_path / "run" / "checkpoints" / "000004.safetensors").write_bytes(b"broken")
    result = dgss(*run, "--resume")
    assert result.exit_code == 0, result.output
    assert "warning: checkpoint" in result.stdout and same_weights(tmp_path / "run", tmp_path / "whole")
    (tmp_path / "run" / "model.safetensors").unlink()
    for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"broken")
    fails(dgss(*run, "--resume"), "no checkpoint in", "--out")


def test_other_targets_on_a_finished_run_are_scored_anew(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(trained, copied)
    shutil.rmtree(copied / "checkpoints")  # the model is there, so nothing is trained
    result = dgss("train", "--resume", "--out", copied, "targets=[]", "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert scores["targets"] == {} and f"training {NAME}" not in result.stderr
    assert scores["source"] == json.loads((trained / "report.json").read_text(encoding="utf-8"))["source"]
    assert same_weights(copied, trained)
    assert [path.name for path in (copied / "predictions").iterdir()] == ["streets-game.png"]


def test_old_scores_are_gone_before_new_ones_are_there(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DgssError("enough")

    copied = tmp_path / "copy"
    shutil.copytree(trained, copied)
    monkeypatch.setattr("dgss.api.train.score", refuse)
    fails(dgss("train", "--resume", "--out", copied, "targets=[]"), "enough")
    left = {path.name for path in copied.rglob("*")}
    assert not left & {"report.json", "report.html", "streets-game.png", "streets-night.png"}


@pytest.mark.parametrize("lost", ["report.html", "predictions/streets-night.png"])
def test_what_is_lost_of_a_finished_run_is_made_again(
    lost: str, dgss: Command, cache: Path, trained: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(trained, copied)
    (copied / lost).unlink()
    result = dgss("train", "--resume", "--out", copied)
    assert result.exit_code == 0, result.output
    assert (copied / lost).is_file() and "report.html" in result.stdout


def test_a_failure_after_training_says_that_the_model_is_saved(
    dgss: Command, cache: Path, trained: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(trained, copied)
    (copied / "report.json").unlink()
    label = next((cache / "streets" / "128x64" / "streets-night").rglob("*_gtFine_labelTrainIds.png"))
    whole = label.read_bytes()
    Image.new("L", (128, 64), 77).save(label)
    result = dgss("train", "--resume", "--out", copied)
    fails(result, f"{label}: value 77", "the model is saved, only its scores are missing", f"--out {copied}")
    label.write_bytes(whole)
    again = dgss("train", "--resume", "--out", copied)
    assert again.exit_code == 0 and f"training {NAME}" not in again.stdout, again.output


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("dgss.recipes.schema.Recipe.build", "take a smaller model"),
        ("dgss.api.train._preview", "lower drawn.size (64, 128)"),
        ("dgss.data.loader.Loader.batch", "lower training.batch_size (1)"),
        ("dgss.api.train.score", "the model is saved"),
    ],
)
def test_lack_of_memory_is_one_line_wherever_it_shows(
    place: str, advice: str, dgss: Command, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 TB")

    monkeypatch.setattr(place, lack)
    command = ("train", NAME, *TINY, "training.steps=1", "targets=[]", "--out", tmp_path / "run")
    fails(dgss(*command), "out of memory (Unable to allocate 9 TB)", advice)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent another way there")
def test_ctrl_c_saves_says_how_to_go_on_and_the_run_ends_as_if_never_stopped(
    dgss: Command, cache: Path, tmp_path: Path
) -> None:
    run = ["train", *TINY, "training.steps=30", "training.threads=1", "targets=[]"]
    command = [sys.executable, "-m", "dgss.cli", *run, "--out", "a run"]
    begin = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("dgss train tqdm-mini-streets")
    assert time.monotonic() - begin < 3
    metrics = tmp_path / "a run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text(encoding="utf-8").count("\n") >= 3) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "go on with: dgss train --resume --out 'a run'" in told and "Traceback" not in told
    assert dgss("train", "--resume", "--out", tmp_path / "a run").exit_code == 0
    assert dgss(*run, "--out", tmp_path / "whole").exit_code == 0
    assert same_weights(tmp_path / "a run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("method.contexts=3", "has 4 tokens, but 3 contexts"),
        ("method.contexts=70", "do not fit the text tower"),
        ("tower.weights=imagenet", "which is not installed"),
    ],
)
def test_a_model_that_cannot_be_built_is_told_before_anything_is_written(
    override: str, reason: str, dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dgss.towers.shipped.util.find_spec", lambda _: None)
    fails(dgss("train", *TINY, "method.mask_prior=none", override, "--out", tmp_path / "run"), reason)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_which_nothing_was_trained_takes_a_mended_recipe(
    dgss: Command, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: wrong\nmethod: {}\n", encoding="utf-8")
    done = dgss("train", NAME, *TINY, "training.steps=1", "targets=[]", "--out", tmp_path / "run", "--resume")
    assert done.exit_code == 0, done.output
    changed = (*TINY, "training.steps=1", "targets=[]", "training.threads=2")
    fails(dgss("train", NAME, *changed, "--out", tmp_path / "run", "--resume"), "training.threads was None, is 2")


def test_a_run_that_failed_before_its_first_checkpoint_needs_no_resume(
    dgss: Command, cache: Path, tmp_path: Path
) -> None:
    """What was wrong is mended, and the same command is typed again. A recipe that a person keeps there is no run."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: wrong\nmethod: {}\n", encoding="utf-8")
    command = ("train", NAME, *TINY, "training.steps=1", "targets=[]", "--out", run)
    fails(dgss(*command), "is not empty")
    (run / ".lock").touch()
    (run / "metrics.jsonl").touch()
    (run / "checkpoints").mkdir()
    assert dgss(*command).exit_code == 0


@pytest.mark.parametrize("text", ["[1]", '{"source": "x"}', "{", ""])
def test_scores_of_another_form_are_one_line(text: str, dgss: Command, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / "report.json").write_text(text, encoding="utf-8")
    fails(dgss("train", "--resume", "--out", tmp_path / "copy"), "report.json cannot be read")


def test_any_other_failure_of_the_system_is_one_line(
    dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "a place")

    monkeypatch.setattr("dgss.recipes.schema.resolve", refuse)
    fails(dgss("train", "--out", tmp_path / "run"), "a place: Permission denied")
    result = dgss("train", "--out", tmp_path / "run", "--debug")
    assert isinstance(result.exception, PermissionError)


class Doubled(Mask2FormerSettings):
    """A method from outside the package."""

    times: int = 2


def test_a_method_from_outside_is_resumed_and_loaded_with_its_recipe(cache: Path, tmp_path: Path) -> None:
    overrides = [*TINY, "training.steps=1", "training.threads=1", "targets=[]"]
    inside = Recipe.load("mask2former-mini-streets", overrides)
    values = {name: getattr(inside, name) for name in Recipe.model_fields}
    recipe = Recipe(**values | {"method": Doubled(**inside.method.model_dump() | {"times": 3})})
    first = train(recipe, out=tmp_path / "run", progress=Progress(quiet=True))
    (tmp_path / "run" / "report.json").unlink()
    again = train(recipe, out=tmp_path / "run", resume=True, progress=Progress(quiet=True))
    assert again.scores["source"] == first.scores["source"]
    model = load_model(tmp_path / "run", "cpu", recipe=recipe)
    assert model.recipe.method == recipe.method
    with pytest.raises(RecipeError, match=r"method\.times = 3: unknown key"):
        load_model(tmp_path / "run", "cpu")

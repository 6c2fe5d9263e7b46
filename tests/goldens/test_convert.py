"""Published checkpoints of tqdm through `dgss convert` and back: the run that is made gives the reference's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from load import Golden
from typer.testing import CliRunner

from dgss.api.convert import Conversion, convert
from dgss.api.load import load_model
from dgss.cli import app
from dgss.errors import DgssError, WeightsError
from dgss.recipes.schema import Recipe
from dgss.towers.clip import OpenClipSettings
from tests.goldens.replay import space
from tests.goldens.test_tqdm import settings_of, towers_of

pytestmark = pytest.mark.golden("tqdm-clip", "tqdm-eva")
Weights = dict[str, torch.Tensor]


@pytest.fixture
def recipe(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe of the golden's tiny model; its towers and class names are those of the golden."""
    monkeypatch.setattr(OpenClipSettings, "build", lambda *_, **__: towers_of(golden))
    monkeypatch.setattr(Recipe, "labels", property(lambda _: space(golden.meta["extra"]["class_names"])))
    return Recipe.load("tqdm-clip-b-gta5").change(name="tiny", method=settings_of(golden).model_dump())


@pytest.fixture
def weights(golden: Golden) -> Weights:
    return {key: torch.from_numpy(np.array(value)) for key, value in golden.state_dict().items()}


def saved(path: Path, weights: Weights) -> Path:
    """A file as mmcv saves it."""
    meta = {"CLASSES": ("road",), "config": "model = dict()", "iter": 20000}
    torch.save({"meta": meta, "state_dict": weights, "optimizer": {"state": {}}}, path)
    return path


def converted(path: Path, weights: Weights, recipe: Recipe, **options: Any) -> Conversion:
    return convert(saved(path / "published.pth", weights), recipe, path / "run", **options)


def test_a_converted_checkpoint_answers_as_the_reference(
    golden: Golden, recipe: Recipe, weights: Weights, tmp_path: Path
) -> None:
    found = converted(tmp_path, weights, recipe)
    assert not found.filling.absent
    kept = set(weights) - {key for names in found.filling.ignored.values() for key in names}
    assert len(found.filling.used) == len(kept) and all(key.startswith("reg_E0.") for key in set(weights) - kept)
    model = load_model(found.path, device="cpu")
    images = torch.from_numpy(golden.input("image"))
    with torch.no_grad():
        scores = model.method(images).scores((images.shape[2], images.shape[3]))
    names = [name for name in golden.names("semantic_full") if not name.endswith("mean")]
    assert names
    for name in names:
        golden.check(name, scores[int(name.removeprefix("semantic_full"))].numpy())


def test_what_does_not_fit_is_named_and_nothing_is_written(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    first, *_ = (key for key in weights if key.startswith("decode_head.cls_embed"))
    faults = {
        "1 missing (mask_decoder.class_embed.weight)": {key: v for key, v in weights.items() if key != first},
        f"mask_decoder.class_embed.weight is ({len(weights[first]) + 1}, ": {
            **weights,
            first: torch.cat([weights[first], weights[first][:1]]),
        },
        "1 unexpected (decode_head.surplus); --partial takes what fits": {
            **weights,
            "decode_head.surplus": torch.zeros(1),
        },
    }
    for words, wrong in faults.items():
        with pytest.raises(WeightsError) as caught:
            converted(tmp_path, wrong, recipe)
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_part_is_taken_where_that_is_asked_for(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    wrong = {key: value for key, value in weights.items() if key != "decode_head.cls_embed.bias"}
    wrong |= {"decode_head.cls_embed.weight": torch.zeros(3, 3), "surplus": torch.zeros(1)}
    found = converted(tmp_path, wrong, recipe, strict=False)
    assert set(found.filling.absent) == {"mask_decoder.class_embed.bias", "mask_decoder.class_embed.weight"}
    assert found.filling.ignored["unknown"] == ("surplus",)
    assert "2 not in the file, random now: mask_decoder.class_embed." in found.table()


def test_a_run_that_is_there_is_not_overwritten(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    converted(tmp_path, weights, recipe)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(DgssError, match="is not empty"):
        converted(tmp_path, weights, recipe)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_the_command_reports_what_became_of_every_tensor(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    wrong = {key: value for key, value in weights.items() if key != "decode_head.cls_embed.bias"}
    file, own = saved(tmp_path / "a.pth", wrong), tmp_path / "own.yaml"
    own.write_text(recipe.dump(), encoding="utf-8")
    line = ["convert", str(file), "--recipe", str(own), "--out", str(tmp_path / "run")]
    refused = CliRunner().invoke(app, line)
    assert refused.exit_code == 1 and "1 missing (mask_decoder.class_embed.bias); --partial" in refused.output
    assert not (tmp_path / "run").exists()
    made = CliRunner().invoke(app, [*line, "--partial"])
    assert made.exit_code == 0, made.output
    for words in ("tensors used", "ignored, the frozen copy", "1 not in the file, random now", f"model: {tmp_path}"):
        assert words in made.output
    assert load_model(tmp_path / "run", device="cpu").recipe.name == "tiny"
    unknown = CliRunner().invoke(app, ["convert", str(file), "--recipe", "tqdm-clip", "--out", str(tmp_path / "b")])
    assert unknown.exit_code == 1 and "did you mean" in unknown.output
    occupied = CliRunner().invoke(app, line)
    assert occupied.exit_code == 1 and "run is not empty; name another folder with --out" in occupied.output

"""Published checkpoints of tqdm, read as they are and through `dgss convert`: both give the reference's answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from load import Golden
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from dgss.api.convert import Conversion, convert
from dgss.api.load import load_model
from dgss.cli import app
from dgss.errors import DgssError, WeightsError
from dgss.recipes.schema import Recipe
from dgss.towers.clip import OpenClipSettings
from dgss.towers.published import named_as_in
from dgss.weights.reference import PUBLISHED, TQDM, fill, recognise
from tests.goldens.replay import space
from tests.goldens.test_tqdm import settings_of, towers_of

pytestmark = pytest.mark.golden("tqdm-clip", "tqdm-eva")
Weights = dict[str, torch.Tensor]
SOURCES = "gta5", "cityscapes"
HUB = "owner/repo", "some/a.pth"


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
    filling = found.reading.filling
    assert not filling.absent
    kept = set(weights) - {key for names in filling.ignored.values() for key in names}
    assert len(filling.used) == len(kept) and all(key.startswith("reg_E0.") for key in set(weights) - kept)
    read = load_model(tmp_path / "published.pth", "cpu", recipe)
    images = torch.from_numpy(golden.input("image"))
    names = [name for name in golden.names("semantic_full") if not name.endswith("mean")]
    assert names
    for model in (read, load_model(found.path, device="cpu")):
        with torch.no_grad():
            scores = model.method(images).scores((images.shape[2], images.shape[3]))
        for name in names:
            golden.check(name, scores[int(name.removeprefix("semantic_full"))].numpy())
    assert read.recipe == recipe and read.reading == found.reading


def test_what_does_not_fit_is_named_and_nothing_is_written(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    first, *_ = (key for key in weights if key.startswith("decode_head.cls_embed"))
    faults = {
        f"1 missing ({first} -> mask_decoder.class_embed.weight)": {
            key: value for key, value in weights.items() if key != first
        },
        f"{first} -> mask_decoder.class_embed.weight is ({len(weights[first]) + 1}, ": {
            **weights,
            first: torch.cat([weights[first], weights[first][:1]]),
        },
        "1 unexpected (decode_head.surplus); `dgss convert --partial` takes what fits": {
            **weights,
            "decode_head.surplus": torch.zeros(1),
        },
    }
    for words, wrong in faults.items():
        with pytest.raises(WeightsError) as caught:
            converted(tmp_path, wrong, recipe)
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
        with pytest.raises(WeightsError) as told:
            load_model(tmp_path / "published.pth", "cpu", recipe)
        assert str(told.value) == str(caught.value)


def test_a_part_is_taken_where_that_is_asked_for(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    wrong = {key: value for key, value in weights.items() if key != "decode_head.cls_embed.bias"}
    wrong |= {"decode_head.cls_embed.weight": torch.zeros(3, 3), "surplus": torch.zeros(1)}
    found = converted(tmp_path, wrong, recipe, strict=False)
    assert set(found.reading.filling.absent) == {"mask_decoder.class_embed.bias", "mask_decoder.class_embed.weight"}
    assert found.reading.filling.ignored["unknown"] == ("surplus",)
    assert "2 not filled by the file, random now: decode_head.cls_embed." in found.table()


def test_whatever_is_missing_is_named_as_the_file_names_it(recipe: Recipe, weights: Weights) -> None:
    """Every tensor in turn, which the file names after those that it has. mutation: by our name alone."""
    method = recipe.build(trained=True)
    taken = set(fill(method, weights, TQDM, "a file").used)
    for key in sorted(taken):
        said = named_as_in({other: str(TQDM.name(other)) for other in taken - {key}}, TQDM)
        assert said(str(TQDM.name(key))) == f"{key} -> {TQDM.name(key)}"


def test_a_tower_of_another_size_needs_its_recipe(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    file, kind = saved(tmp_path / "a.pth", weights), recognise(weights, "a file")
    mark = weights[kind.marks[-1]]
    with pytest.raises(WeightsError) as caught:
        load_model(file, "cpu")
    told = f"{kind.marks[-1]} is {tuple(mark.shape)}, of {kind.recipes[0]} it is {kind.width} wide"
    assert told in str(caught.value) and "`dgss convert --recipe FILE`" in str(caught.value)
    assert load_model(file, "cpu", recipe).recipe == recipe


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
    missing = "1 missing (decode_head.cls_embed.bias -> mask_decoder.class_embed.bias); `dgss convert --partial`"
    assert refused.exit_code == 1 and missing in refused.output
    assert not (tmp_path / "run").exists()
    made = CliRunner().invoke(app, [*line, "--partial"])
    assert made.exit_code == 0, made.output
    held = len(weights) - 1 - sum(key.startswith("reg_E0.") for key in weights)
    shown = f"{held} tensors used\n", f"{held} of them renamed: ", "ignored, the frozen copy", f"model: {tmp_path}"
    for words in (*shown, "1 not filled by the file, random now: decode_head.cls_embed.bias -> "):
        assert words in made.output
    assert load_model(tmp_path / "run", device="cpu").recipe.name == "tiny"
    unknown = CliRunner().invoke(app, ["convert", str(file), "--recipe", "tqdm-clip", "--out", str(tmp_path / "b")])
    assert unknown.exit_code == 1 and "did you mean" in unknown.output
    occupied = CliRunner().invoke(app, line)
    assert occupied.exit_code == 1 and "run is not empty; name another folder with --out" in occupied.output


def test_predict_takes_the_file_itself_and_says_what_became_of_it(
    golden: Golden, recipe: Recipe, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = (f"tqdm-{'clip-b' if 'clip' in golden.folder.name else 'eva02-l'}-{source}" for source in SOURCES)
    named: list[object] = []
    usual = recipe.change(name=first, inference={"window": None, "stride": None})
    monkeypatch.setattr(Recipe, "load", lambda name: named.append(name) or usual)
    tiny = [replace(kind, width=weights[mark].shape[-1]) for kind in PUBLISHED if (mark := kind.marks[-1]) in weights]
    monkeypatch.setattr("dgss.weights.reference.PUBLISHED", tiny)
    file = saved(tmp_path / "a.pth", weights)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, path: file if (repo, path) == HUB else None)
    Image.fromarray(np.full((40, 72, 3), 128, np.uint8)).save(tmp_path / "b.png")
    before, shown = set(tmp_path.iterdir()), []
    for number, place in enumerate((str(file), f"hf:{'/'.join(HUB)}")):
        out = tmp_path / f"out{number}"
        result = CliRunner().invoke(app, ["predict", place, str(tmp_path / "b.png"), "--out", str(out)])
        assert result.exit_code == 0, result.output
        for words in ("tensors used", "ignored, the frozen copy", f"taken for {first}; it may be of {other}"):
            assert words in result.stderr, result.output
        shown.append((out / "b_labels.png").read_bytes())
    assert named == [first] * 2 and shown[0] == shown[1]
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"out0", "out1"}


def test_other_forms_of_a_file(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    """mutation: what is ours known by the name of the file"""
    own, theirs = converted(tmp_path, weights, recipe), tmp_path / "theirs.safetensors"
    save_file({key: value.contiguous().clone() for key, value in weights.items()}, theirs)
    read = load_model(theirs, "cpu", recipe).reading
    assert read is not None and set(read.filling.used) == set(own.reading.filling.used)
    ours = (own.path / "model.safetensors").rename(tmp_path / "ours")
    assert load_model(ours, "cpu").reading is None


def test_values_that_are_no_numbers_are_refused(recipe: Recipe, weights: Weights, tmp_path: Path) -> None:
    """mutation: a run is made of which load_model says that its training went astray"""
    broken = {**weights, "gamma": torch.full_like(weights["gamma"], torch.nan)}
    file = saved(tmp_path / "a.pth", broken)
    for read in (lambda: convert(file, recipe, tmp_path / "run"), lambda: load_model(file, "cpu", recipe)):
        with pytest.raises(WeightsError, match=r"no numbers in 1 of .*context_decoder\.gamma: download it again"):
            read()
    assert not (tmp_path / "run").exists()

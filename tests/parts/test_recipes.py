"""Recipes: what they say, what they refuse, that nothing is lost on the way to a file and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from torch import Generator

from dgss.errors import DgssError, RecipeError
from dgss.interfaces import Method, Towers
from dgss.labels import LabelSpace
from dgss.recipes import library
from dgss.recipes.schema import Recipe, differences, resolve

NAME = "tqdm-mini-streets"
PRESETS = library.preset_names()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_named_as_its_file_and_survives_a_file(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name and recipe.summary
    file = tmp_path / "with space" / "recipe.yaml"
    file.parent.mkdir()
    file.write_text(recipe.dump(), encoding="utf-8")
    assert Recipe.load(file) == recipe
    assert Recipe.load(str(file)) == recipe


@pytest.mark.parametrize(
    ("text", "seen"),
    [("1e-5", 1e-5), ("0.00001", 1e-5), ("1.0e-5", 1e-5), ("1E-5", 1e-5), ("'1e-5'", 1e-5), ("012", 12.0)],
)
def test_numbers_are_read_as_people_write_them(text: str, seen: float) -> None:
    recipe = Recipe.load(NAME, [f"training.optimizer.lr={text}"])
    assert recipe.training.optimizer.lr == seen


@pytest.mark.parametrize("text", ["true", "on", "1:30", "abc", "nan", "-1", "[1]", "null"])
def test_what_is_no_number_is_refused_and_shown(text: str) -> None:
    with pytest.raises(RecipeError, match=r"training\.optimizer\.lr = "):
        Recipe.load(NAME, [f"training.optimizer.lr={text}"])


def test_every_fault_is_named_at_once_with_the_nearest_key() -> None:
    overrides = [
        "training.stpes=3",
        "training.optimizer.lr=abc",
        "source=streets-gane",
        "targets=[streets-nigth, camvid]",
        "method.mask_losses.point=3",
        "method.gamma_=1",
        "seed=-1",
        "steps=5",
        "training.log_every",
        "drawn.size=[1, 2]",
        "training.batch_size=true",
    ]
    with pytest.raises(RecipeError) as error:
        Recipe.load(NAME, overrides)
    text = str(error.value)
    for expected in (
        "training.stpes = 3: unknown key; did you mean training.steps?",
        "training.optimizer.lr = 'abc'",
        "did you mean 'streets-game'",
        "did you mean 'streets-night'",
        "method.mask_losses.point = 3: unknown key; did you mean method.mask_losses.points?",
        "method.gamma_ = 1: unknown key",
        "seed = -1: should be greater than or equal to 0",
        "steps = 5: unknown key; did you mean training.steps?",
        "training.log_every: an override is written KEY=VALUE",
        "drawn.size.0 = 1: should be greater than or equal to 32",
        "training.batch_size = True: should be a number",
    ):
        assert expected in text
    assert len(text.splitlines()) == 1 + 12  # drawn.size has two


@pytest.mark.parametrize("key", ["training.batch_size", "augment.flip", "method.context_decoder.gamma", "drawn.size"])
def test_true_is_no_number(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"{key} = (True|\[.*\]): should be a number"):
        Recipe.load(NAME, [f"{key}={'[true, 64]' if key == 'drawn.size' else 'true'}"])


def test_true_is_a_truth_value_where_one_is_wanted() -> None:
    assert Recipe.load(NAME, ["tower.frozen=true"]).tower.frozen


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no recipe"),
        ("- 1", "holds no recipe"),
        ("a: [", "is no YAML"),
        ("[" * 4000, "is no YAML"),
        ("name: x\nname: y", "'name' is given twice"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system [echo]", "is no YAML"),
        ("name: x", "source: is missing"),
    ],
)
def test_a_broken_file_is_one_recipe_error(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=reason):
        Recipe.load(file)


@pytest.mark.parametrize("source", ["tqdm-mini-street", "no/such/file.yaml", Path("nothing")])
def test_an_unknown_recipe_names_the_nearest(source: str | Path) -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'tqdm-mini-streets'|dgss recipes list"):
        Recipe.load(source)


def test_a_folder_with_the_name_of_a_preset_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path)
    assert Recipe.load(NAME).name == NAME


def test_another_method_keeps_what_both_know() -> None:
    recipe = Recipe.load(NAME, ["method.name=mask2former", "method.queries=21"])
    assert type(recipe.method).__name__ == "Mask2FormerSettings"
    assert recipe.method.width == Recipe.load(NAME).method.width and recipe.method.queries == 21
    with pytest.raises(RecipeError, match=r"method\.contexts = 3: unknown key; another method has it"):
        Recipe.load(NAME, ["method.name=mask2former", "method.contexts=3"])
    with pytest.raises(RecipeError, match=r"method\.name = 'tqmd': should be one of tqdm, mask2former"):
        Recipe.load(NAME, ["method.name=tqmd"])


def test_change_reaches_into_groups_and_leaves_the_rest() -> None:
    recipe = Recipe.load(NAME)
    changed = recipe.change(source="streets-photo", training={"steps": 200, "optimizer": {"lr": 0.5}}, seed=1)
    assert (changed.source, changed.training.steps, changed.training.optimizer.lr) == ("streets-photo", 200, 0.5)
    assert differences(recipe, changed, ["training.optimizer"]) == [
        "seed was 0, is 1",
        "source was 'streets-game', is 'streets-photo'",
        f"training.steps was {recipe.training.steps}, is 200",
    ]
    assert recipe.with_overrides(["training.steps=200"]) == recipe.change(training={"steps": 200})
    with pytest.raises(RecipeError, match="did you mean training"):
        recipe.change(trainin={})


class OwnSettings(BaseModel):
    """A method from outside the package."""

    depth: int = 3

    def build(self, towers: Towers, labels: LabelSpace, generator: Generator, teacher: bool = True) -> Method:
        raise NotImplementedError


def test_a_settings_object_from_outside_is_taken_from_python() -> None:
    recipe = Recipe(name="own", source="streets-game", size=(64, 64), method=OwnSettings(depth=5))
    assert recipe.method == OwnSettings(depth=5)
    assert recipe.change(seed=2).method == OwnSettings(depth=5)
    assert recipe.change(method={"depth": 6}).method == OwnSettings(depth=6)
    assert "depth: 5" in recipe.dump()


def test_targets_must_be_readable_in_the_classes_of_the_source() -> None:
    with pytest.raises(RecipeError, match="labels of 'camvid11' cannot be read as 'cityscapes19'"):
        Recipe.load(NAME, ["source=camvid"])
    assert Recipe.load(NAME, ["targets=camvid,streets-fog"]).targets == ("camvid", "streets-fog")


def test_the_origin_of_each_value_is_known() -> None:
    resolved = resolve(NAME, ["training.steps=7", "method.context_decoder.layers=2"])
    assert resolved.origins["training.steps"] == "command line"
    assert resolved.origins["method.context_decoder.layers"] == "command line"
    assert resolved.origins["source"] == NAME
    assert resolved.origins["training.optimizer.eps"] == "default"
    assert resolved.origins.keys() == resolved.values().keys()


def test_copy_writes_a_preset_and_never_over_a_file(tmp_path: Path) -> None:
    file = library.copy(NAME, tmp_path / "mine.yaml")
    assert Recipe.load(file) == Recipe.load(NAME)
    with pytest.raises(DgssError, match="exists"):
        library.copy(NAME, file)
    assert library.copy(NAME, tmp_path).name == f"{NAME}.yaml"


def test_strings_that_look_like_numbers_survive_a_file(tmp_path: Path) -> None:
    expected = {"command": "1e-5", "machine": "012", "targets": {"on": 1e-5, "true": 1e22}}
    recipe = Recipe.load(NAME).change(summary="null", expected=expected)
    (tmp_path / "recipe.yaml").write_text(recipe.dump(), encoding="utf-8")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_reading_a_recipe_loads_neither_timm_nor_open_clip() -> None:
    code = (
        "import sys; from dgss import Recipe, DgssError\n"
        f"Recipe.load({NAME!r})\n"
        f"try:\n    Recipe.load({NAME!r}, ['a=1', 'seed=x'])\nexcept DgssError:\n    pass\n"
        "print([m for m in ('timm', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method.name=mask2former", "method.queries=18"], "queries 18 should be at least 19"),
        (["tower.weights=none"], "mask_prior score_map needs a tower that states its temperature"),
        (["method.context_decoder.heads=5"], r"width 96 is no multiple of 5 \(heads\)"),
        (["method.contexts=0"], "context_init says how contexts start, but contexts is 0"),
        (["inference.window=[64, 16]"], r"window \(64, 16\) should be at least 32"),
        (["inference.short_edge=31"], "short_edge 31 should be at least 32"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(overrides: list[str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        Recipe.load(NAME, overrides)


def test_the_smallest_that_fits_is_taken() -> None:
    Recipe.load(NAME, ["method.name=mask2former", "method.queries=19", "tower.weights=none"])
    Recipe.load(NAME, ["inference.window=[32, 32]", "inference.short_edge=32", "method.context_decoder.heads=6"])
    Recipe.load(NAME, ["method.contexts=0", "method.context_init=null"])


def test_a_recipe_with_a_method_from_outside_is_read_back_by_its_like() -> None:
    recipe = Recipe(name="own", source="streets-game", size=(64, 64), method=OwnSettings(depth=5))
    assert Recipe.parse(recipe.dump(), "file", like=recipe.change(seed=1)) == recipe
    with pytest.raises(RecipeError, match=r"method\.name should be one of|method"):
        Recipe.parse(recipe.dump(), "file")
    with pytest.raises(RecipeError, match="file: its method is no OwnSettings"):
        Recipe.parse(recipe.dump().replace("depth: 5", "depth: x"), "file", like=recipe)

"""Recipes: what they say, what they refuse, that nothing is lost on the way to a file and back."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from pydantic import BaseModel
from torch import Generator

import dgss
from dgss.cli.recipes import list_
from dgss.errors import DgssError, RecipeError
from dgss.interfaces import Method, Towers
from dgss.labels import LabelSpace
from dgss.recipes import library
from dgss.recipes.faults import fields_of
from dgss.recipes.schema import Recipe, differences, resolve
from dgss.towers.clip import OpenClipSettings
from dgss.towers.shipped import MiniSettings
from dgss.towers.text import TowerOutline
from tests.parts.test_clip import CLIP

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
        "method.gamma_ = 1: unknown key; did you mean method.context_decoder.gamma?",
        "seed = -1: should be at least 0",
        "steps = 5: unknown key; did you mean training.steps?",
        "training.log_every: an override is written KEY=VALUE",
        "drawn.size = [1, 2]: 1 should be at least 32",
        "drawn.size = [1, 2]: 2 should be at least 32",
        "training.batch_size = true: should be a whole number",
    ):
        assert expected in text
    assert len(text.splitlines()) == 1 + 12  # drawn.size has two


# typed at the command line -> the line that says what is wrong, after "recipe tqdm-mini-streets: "
WRONG = {
    # lists
    "size=64x64": "size = '64x64': should be [height, width] in pixels, as in [96, 192]",
    "size=64": "size = 64: should be [height, width] in pixels, as in [96, 192]",
    "size=[64]": "size = [64]: should be [height, width] in pixels, as in [96, 192]",
    "size=[64, 64, 64]": "size = [64, 64, 64]: should be [height, width] in pixels, as in [96, 192]",
    "size=16,64": "size = '16,64': 16 should be at least 32",
    "size.0=64": "size = {'0': 64}: should be [height, width] in pixels, as in [96, 192]",
    "augment.scale_base=64": "augment.scale_base = 64: should be [a whole number, a whole number] or null",
    "augment.scale_base=[-5, 100]": "augment.scale_base = [-5, 100]: -5 should be at least 1",
    "training.optimizer.betas=0.9": "training.optimizer.betas = 0.9: should be [a number, a number]",
    "normalize.std=[0, 1, 1]": "normalize.std = [0, 1, 1]: 0 should be above 0",
    "targets=": "targets = null: should be [domain, ...], and [] for none",
    "targets=[streets-fog, streets-fog]": "targets = ['streets-fog', 'streets-fog']: streets-fog is given twice",
    # kinds
    "seed=1.5": "seed = 1.5: should be a whole number",
    "seed=null": "seed = null: should be a whole number",
    "seed=4294967296": "seed = 4294967296: should be below 4294967296",
    "training.steps.x=3": "training.steps = {'x': 3}: should be a whole number",
    "training.clip_norm=x": "training.clip_norm = 'x': should be a number or null",
    "training.clip_norm=0": "training.clip_norm = 0: should be above 0 or null",
    "training.precision=float16": "training.precision = 'float16': should be 'float32' or 'bfloat16'",
    "training.optimizer.lr=.inf": "training.optimizer.lr = inf: should be a finite number",
    "augment.scale_max=.inf": "augment.scale_max = inf: should be a finite number",
    "method.context_decoder.gamma=abc": "method.context_decoder.gamma = 'abc': should be a number or 'reference'",
    "method.text_queries=maybe": "method.text_queries = 'maybe': should be true or false",
    "method.template=x": "method.template = 'x': should be text with {} for the class name",
    "method.context_init=''": "method.context_init = '': should be a phrase or null",
    "data=3": "data = 3: should be a folder, {domain: folder, ...} or null",
    "expected.targets=abc": "expected.targets = 'abc': should be {text: a number, ...}",
    # groups
    "method=null": "method = null: should be a group (method.name=...)",
    "method=tqdm": "method = 'tqdm': should be a group (method.name=...)",
    "method.name=": "method.name = null: should be one of tqdm, mask2former, linear, zero_shot",
    "training.optimizer=adam": "training.optimizer = 'adam': should be a group (training.optimizer.lr=...)",
    "method.context_decoder=3": (
        "method.context_decoder = 3: should be a group (method.context_decoder.width=...) or null"
    ),
    # unknown keys
    "training.optimiser.lr=1": "training.optimiser.lr = 1: unknown key; did you mean training.optimizer.lr?",
    "optimizer.lr=1": "optimizer.lr = 1: unknown key; did you mean training.optimizer.lr?",
    "trainng.steps=3": "trainng.steps = 3: unknown key; did you mean training.steps?",
    "trainng={steps: 3, workers: 0}": (
        "trainng = {'steps': 3, 'workers': 0}: unknown key; did you mean training?"
    ),
    "method.mask_loss.points=3": "method.mask_loss.points = 3: unknown key; did you mean method.mask_losses.points?",
    "context_decoder.layer=3": "context_decoder.layer = 3: unknown key; did you mean method.context_decoder.layers?",
    "batchsize=3": "batchsize = 3: unknown key; did you mean training.batch_size?",
    "TRAINING.STEPS=3": "TRAINING.STEPS = 3: unknown key; did you mean training.steps?",
    "optimiser.foo=3": "optimiser.foo = 3: unknown key; did you mean training.optimizer?",
    "tower.foo=3": "tower.foo = 3: unknown key; known in tower: name, weights, frozen, frozen_norm, dense_stride",
    "method.queries=3": "method.queries = 3: unknown key; mask2former has it",
    "method.name=mask2former method.querie=3": "method.querie = 3: unknown key; did you mean method.queries?",
    "method.name=mask2former method.context_decoder.layers=3": (
        "method.context_decoder.layers = 3: unknown key; tqdm has it"
    ),
    # YAML
    "seed=[": "seed = '[': no YAML value; line 1, column 2: a value should stand before the end",
    "seed={a": "seed = '{a': no YAML value; line 1, column 3: expected ',' or '}', but got the end",
    "seed='1": 'seed = "\'1": no YAML value; line 1, column 3: a quotation mark is not closed',
    "seed=!!int 3": "seed = '!!int 3': no YAML value; line 1, column 1: a recipe has no tags (!name)",
    "summary=a: b: c": (
        "summary = 'a: b: c': no YAML value; line 1, column 5: "
        "no key can stand here; check the indent, quote a text with a colon"
    ),
    # parts that do not fit together
    "method.name=mask2former method.queries=18": (
        "method.queries = 18: should be at least 19, one for each class of cityscapes19"
    ),
    "method.name=zero_shot": "training.steps = 150: zero_shot has nothing to train; set it to 0",
    "method.name=zero_shot method.width=96": "method.width = 96: unknown key; linear has it",
    "method.name=linear method.decoder_layers=2": "method.decoder_layers = 2: unknown key; mask2former has it",
    "tower.weights=none": (
        "method.mask_prior = 'score_map': needs a tower with a temperature (mini, pretrained); set it to none"
    ),
    "tower.weights=foo": "tower.weights = 'foo': should be 'pretrained' or 'imagenet' or 'none'",
    "tower.name=other": "tower.name = 'other': should be one of mini, open_clip",
    "tower.taps=1,2,3,4": "tower.taps = '1,2,3,4': unknown key; open_clip has it",
    "method.frozen_copy=train": (
        "method.frozen_copy = 'train': lets drop path draw, but the tower has none; set it to eval"
    ),
    "method.text_queries=false method.text_attention=false method.vision_language_weight=0 method.mask_prior=none": (
        "method.text_queries = false: nor does any other part use text; choose the method mask2former"
    ),
    "method.contexts=0": "method.context_init = 'a photo of a': starts contexts, of which are 0; set it to null",
    "method.contexts=3": (
        "method.contexts = 3: the phrase 'a photo of a' has 4 tokens, but 3 contexts are to start from it: "
        "set contexts to 4"
    ),
    "method.contexts=100": (
        "method.contexts = 100: 100 contexts and class names of up to 4 tokens do not fit the text tower's 64 places: "
        "set contexts to 60 or less"
    ),
    "method.mask_losses={class_weight: 0, mask_weight: 0, dice_weight: 0}": (
        "method.mask_losses.class_weight = 0: mask_weight and dice_weight are 0, too, so no mask learns; raise one"
    ),
    "augment.scale_min=3": "augment.scale_min = 3.0: is above scale_max 1.6; swap them",
    "inference.stride=[64, 64]": (
        "inference.stride = [64, 64]: needs a window; set window too or leave stride out"
    ),
    "inference.window=64,64 inference.stride=65,5": (
        "inference.stride = [65, 5]: leaves gaps between windows of [64, 64]; lower it"
    ),
    "inference.window=[64, 16]": (
        "inference.window = [64, 16]: should be at least 32 pixels, the coarsest stride"
    ),
    "inference.short_edge=15": "inference.short_edge = 15: should be at least 32 pixels, the coarsest stride",
    "source=camvid": (
        "targets = ['streets-photo', 'streets-night', 'streets-fog', 'street...: streets-photo, streets-night, "
        "streets-fog, streets-rain, streets-snow, streets-sketch, streets-painting, streets-origami: labels of "
        "'camvid11' cannot be read as 'cityscapes19': no rule folds one into the other; score on a domain with the "
        "classes of 'camvid11'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("typed", WRONG)
def test_a_fault_is_one_line_with_the_key_the_value_and_what_is_allowed(typed: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.load(NAME, re.split(r" (?=method|inference)", typed))
    assert str(error.value) == f"recipe {NAME}: {WRONG[typed]}"


@pytest.mark.parametrize("override", ["method.width=97", "method.heads=7", "method.context_decoder.heads=5"])
def test_a_fault_across_the_fields_of_a_group_names_the_field(override: str) -> None:
    group = override.rpartition(".")[0]
    with pytest.raises(RecipeError, match=rf"^recipe {NAME}: {group}\.width\b.* is no multiple of \d+ \(heads\)$"):
        Recipe.load(NAME, [override])


def test_all_limits_of_all_settings_have_words_of_ours() -> None:
    """What pydantic checks beyond these would be told in the words for a wrong type."""
    for key, field in fields_of(Recipe).items():
        for limit in field.metadata:
            name = type(limit).__name__
            told = name in ("Ge", "Gt", "Le", "Lt", "SerializeAsAny", "WrapValidator", "Discriminator")
            pattern = getattr(limit, "pattern", None)
            assert told or (field.description if pattern else hasattr(limit, "allow_inf_nan")), f"{key}: {limit}"


def test_lists_may_be_typed_with_commas_alone() -> None:
    overrides = ["size=64, 96", "drawn.size=64,128", "training.optimizer.betas=0.8,0.9", "targets=camvid"]
    assert Recipe.load(NAME, overrides) == Recipe.load(NAME).change(
        size=(64, 96), drawn={"size": [64, 128]}, training={"optimizer": {"betas": (0.8, 0.9)}}, targets=["camvid"]
    )


def test_faults_of_parts_that_do_not_fit_come_with_all_others() -> None:
    overrides = [
        "method.contexts=100",
        f"method.template={'word ' * 70}{{}}",
        "tower.weights=none",
        "inference={window: [8, 8], short_edge: 3}",
        "data={camvit: a, gta: b}",
        "seed=x",
        "targets=[nowhere, streets-fgo]",
    ]
    with pytest.raises(RecipeError) as error:
        Recipe.load(NAME, overrides)
    lines = str(error.value).splitlines()[1:]
    keys = ["seed", "targets", "targets", "data", "data"]
    keys += ["method.mask_prior", "method.template", "method.contexts", "inference.window", "inference.short_edge"]
    assert [line.split(" = ")[0].strip() for line in lines] == keys
    assert max(map(len, lines)) < 300


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a b", "-x", "x.", "a\\b", "x" * 61, "a\nb", "1"])
def test_a_name_is_one_for_a_folder(name: str) -> None:
    with pytest.raises(
        RecipeError, match=r"^recipe .*: name = .*: should be at most 60 letters, digits and _"
    ) as error:
        Recipe.load(NAME, [f'name="{name}"' if name != "1" else "name=1"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x", "x" * 60, "_a.b-c_2", "Straße"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert Recipe.load(NAME, [f"name={name}"]).name == name


def test_keys_of_python_and_files_are_levels_not_dots(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"training\.steps = 3: unknown key; .* write training: \{steps: \.\.\.\}"):
        Recipe.load(NAME).change(**{"training.steps": 3})
    (tmp_path / "x.yaml").write_text("1: 2\nnull: 3\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"(?s)  1: unknown key; it should be text.*  None: unknown key"):
        Recipe.load(tmp_path / "x.yaml")


@pytest.mark.parametrize("key", ["training.batch_size", "augment.flip", "method.context_decoder.gamma", "drawn.size"])
def test_true_is_no_number(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"{key} = (true|\[.*\]): should be .*number"):
        Recipe.load(NAME, [f"{key}={'[true, 64]' if key == 'drawn.size' else 'true'}"])


def test_true_is_a_truth_value_where_one_is_wanted() -> None:
    assert Recipe.load(NAME, ["tower.frozen=true"]).tower.frozen


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no recipe"),
        ("- 1", "holds no recipe"),
        ("a: [", r"broken\.yaml is no YAML: line 1, column 5: a value should stand before the end$"),
        ("a: [1, 2\nb: 3\n", r"line 2, column 2: expected ',' or '\]', but got ':' \(in what begins at line 1\)$"),
        ("a:\n\tb: 3\n", "line 2, column 1: a tab; indent with spaces"),
        ("a:\n    b: 3\n  c: 4\n", "line 3, column 3: not indented like the lines it belongs to"),
        ("a: b\n   c: d\n", "line 2, column 5: no key can stand here; check the indent"),
        ("a: b: c", "line 1, column 5: no key can stand here; check the indent, quote a text with a colon$"),
        ("a: 'b\n", "line 2, column 1: a quotation mark is not closed"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: found another document"),
        ("a: \a", "is no YAML: character 4 may not stand in it$"),
        ("a: " + "9" * 5000, "is no YAML: a number has too many digits$"),
        ("[" * 4000, "is no YAML: nested too deep$"),
        ("name: x\nname: y", "line 2, column 1: 'name' is given twice$"),
        ("[a]: 1", "line 1, column 1: a key should be text"),
        ("a: &x [1]\nb: *x", r"line 2, column 4: a recipe has no aliases \(\*name\)$"),
        ("a: !!python/object/apply:os.system [echo]", r"line 1, column 4: a recipe has no tags \(!name\)$"),
        ("a: !!bool maybe", "a recipe has no tags"),
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
    with pytest.raises(RecipeError, match=r"method\.contexts = 3: unknown key; tqdm has it$"):
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


def test_no_key_of_another_method_is_proposed() -> None:
    """Whoever follows the advice must not be refused again."""
    with pytest.raises(RecipeError, match=r"method\.querie = 3: unknown key; known in method: width, ") as error:
        Recipe.load(NAME, ["method.querie=3"])
    assert " queries" not in str(error.value)


def test_a_recipe_made_by_hand_is_refused_in_the_same_words() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(name="x", seed=True, steps=3)  # type: ignore[call-arg]
    assert str(error.value).splitlines() == [
        "recipe made in Python has 5 faults:",
        "  seed = true: should be a whole number",
        "  source: is missing",
        "  size: is missing",
        "  method: is missing",
        "  steps = 3: unknown key; did you mean training.steps?",
    ]


def test_a_recipe_can_be_copied_and_sent() -> None:
    recipe = Recipe.load(NAME)
    assert pickle.loads(pickle.dumps(recipe)) == copy.deepcopy(recipe) == Recipe.model_validate(recipe) == recipe  # noqa: S301
    assert recipe.model_copy(update={"seed": 3}) == recipe.change(seed=3)


@pytest.mark.parametrize("name", PRESETS)
def test_a_written_recipe_names_method_and_tower_first(name: str) -> None:
    recipe = Recipe.load(name)
    text = recipe.dump()
    assert f"\nmethod:\n  name: {recipe.method.name}\n" in text and f"\ntower:\n  name: {recipe.tower.name}\n" in text
    assert Recipe.parse(text, "file").dump() == text


@pytest.mark.parametrize("drop_path", [0.0, 0.1])
def test_what_is_said_of_a_pair_of_open_clip_is_true(drop_path: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgss.towers.clip.pair_config", lambda name: CLIP)
    settings = OpenClipSettings(weights="none", size=64, drop_path=drop_path)
    said, built = settings.outline, TowerOutline.of(settings.build())
    assert (said.temperature, said.drop_path) == (built.temperature, built.drop_path) == (False, drop_path > 0)
    assert said.text == "unknown"


@pytest.mark.parametrize("weights", ["pretrained", "none"])
def test_what_is_said_of_towers_before_they_are_built_is_true(weights: Literal["pretrained", "none"]) -> None:
    settings = MiniSettings(weights=weights)
    said, built = settings.outline, TowerOutline.of(settings.build(weights=False))
    assert (said.temperature, said.drop_path) == (built.temperature, built.drop_path)
    assert said.text is not None and type(said.text) is type(built.text)


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


class PickySettings(OwnSettings):
    """It knows what it fits, as those of the package do."""

    def misfits(self, towers: TowerOutline, labels: LabelSpace) -> list[str]:
        return [f"depth = {self.depth}: should be {len(labels)}"] if self.depth != len(labels) else []


def test_settings_say_themselves_what_they_do_not_fit() -> None:
    """The schema knows no method by name."""
    made = {"name": "own", "source": "streets-game", "size": (64, 64)}
    assert Recipe(**made, method=PickySettings(depth=19)).labels.name == "cityscapes19"  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"depth = 5: should be 19$"):
        Recipe(**made, method=PickySettings(depth=5))  # type: ignore[arg-type]


def test_what_trains_nothing_is_given_no_steps(tmp_path: Path) -> None:
    """Also where no steps are written: the default is told by its key."""
    assert Recipe.load(NAME, ["method.name=zero_shot", "training.steps=0"]).training.steps == 0
    assert Recipe.load(NAME, ["training.steps=0"]).training.steps == 0
    file = tmp_path / "short.yaml"
    file.write_text("name: short\nsource: streets-game\nsize: [64, 64]\nmethod: {name: zero_shot}\n", encoding="utf-8")
    fault = "training.steps = 20000: {} has nothing to train; set it to 0"
    with pytest.raises(RecipeError) as error:
        Recipe.load(file)
    assert str(error.value) == f"recipe {file}: {fault.format('zero_shot')}"
    with pytest.raises(RecipeError) as error:
        Recipe.load(NAME, ["method.name=zero_shot", "method.template=x", "training.steps=3", "seed=x"])
    keys = [line.split(" = ")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert keys == ["seed", "method.template"], "the steps are judged once the method is known"
    with pytest.raises(RecipeError) as error:
        Recipe.load(NAME, ["method.name=zero_shot", "training.steps=3", "seed=x", "inference.short_edge=3"])
    keys = [line.split(" = ")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert keys == ["seed", "training.steps", "inference.short_edge"]


class StillSettings(OwnSettings):
    """It has nothing to train."""

    trains: ClassVar[bool] = False


def test_a_method_from_outside_may_have_nothing_to_train() -> None:
    made = {"name": "own", "source": "streets-game", "size": (64, 64), "method": StillSettings()}
    assert Recipe(**made, training={"steps": 0}).method == StillSettings()  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"training\.steps = 20000: it has nothing to train; set it to 0$"):
        Recipe(**made)  # type: ignore[arg-type]


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
    file = dgss.copy_recipe(NAME, tmp_path / "mine.yaml")
    assert Recipe.load(file) == Recipe.load(NAME) and file.read_text(encoding="utf-8") == dgss.show_recipe(NAME)
    with pytest.raises(DgssError, match="exists"):
        dgss.copy_recipe(NAME, file)
    assert dgss.copy_recipe(NAME, str(tmp_path)).name == f"{NAME}.yaml"


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


def test_the_smallest_that_fits_is_taken() -> None:
    Recipe.load(NAME, ["method.name=mask2former", "method.queries=19", "tower.weights=none"])
    Recipe.load(NAME, ["inference.window=[32, 32]", "inference.short_edge=32", "method.context_decoder.heads=6"])
    Recipe.load(NAME, ["method.contexts=0", "method.context_init=null"])


def test_what_holds_no_two_patches_is_refused_when_the_tower_is_built() -> None:
    """mutation: known only when the first image arrives, after the weights were fetched and the run was begun"""
    large = ["tower.name=open_clip", "tower.model=ViT-B-32-quickgelu", "method.mask_prior=none"]
    with torch.device("meta"):
        for key, typed in (("size", "[64, 32]"), ("inference.window", "[32, 64]"), ("inference.short_edge", "32")):
            recipe = Recipe.load(NAME, ["size=64,64", "inference.short_edge=64", *large, f"{key}={typed}"])
            wrong = f"recipe {NAME}: {key} = {typed}: should be at least 64 pixels, two patches of the tower"
            with pytest.raises(RecipeError, match=f"^{re.escape(wrong)}"):
                recipe.build(trained=True)
        recipe.change(size=(64, 64), inference={"short_edge": 64}).build(trained=True)


def test_a_recipe_with_a_method_from_outside_is_read_back_by_its_like() -> None:
    recipe = Recipe(name="own", source="streets-game", size=(64, 64), method=OwnSettings(depth=5))
    assert Recipe.parse(recipe.dump(), "file", like=recipe.change(seed=1)) == recipe
    with pytest.raises(RecipeError, match=r"method\.name should be one of|method"):
        Recipe.parse(recipe.dump(), "file")
    wrong = r"^recipe {}: method\.depth = 'x': should be a whole number$"
    with pytest.raises(RecipeError, match=wrong.format("file")):
        Recipe.parse(recipe.dump().replace("depth: 5", "depth: x"), "file", like=recipe)
    with pytest.raises(RecipeError, match=wrong.format("own")):
        recipe.with_overrides(["method.depth=x"])


def written(folder: Path, **texts: str) -> Path:
    """A folder of recipe files; the texts by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_recipe_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    """Mutations: groups replaced whole; name, summary and expected inherited."""
    text = f"base: {NAME}\nname: mine\nmethod:\n  context_decoder:\n    layers: 3\ntraining:\n  steps: 7\n"
    folder = written(tmp_path, mine=text, nameless=text.replace("name: mine\n", ""))
    recipe = Recipe.load(folder / "mine.yaml")
    same = Recipe.load(NAME, ["method.context_decoder.layers=3", "training.steps=7"])
    assert recipe == same.change(name="mine", summary="", expected=None)
    assert "\nbase:" not in recipe.dump() and Recipe.parse(recipe.dump(), "file") == recipe
    with pytest.raises(RecipeError, match=r"nameless\.yaml: name: is missing$"):
        Recipe.load(folder / "nameless.yaml")


def test_a_base_may_be_a_file_beside_and_have_a_base_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutations: a path from the current folder; the base of the base forgotten."""
    written(tmp_path / "a", low=f"base: {NAME}\nname: low\nseed: 3\nsize: [64, 64]\n")
    folder = written(tmp_path / "b", top="base: ../a/low.yaml\nname: top\nseed: 4\n")
    written(tmp_path, low="base: nowhere\n")
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_text("name: a file in the way", encoding="utf-8")
    resolved = resolve(folder / "top.yaml", ["training.steps=2"])
    assert resolved.recipe == Recipe.load(folder / "top.yaml").change(training={"steps": 2})
    assert (resolved.recipe.seed, resolved.recipe.size, resolved.recipe.source) == (4, (64, 64), "streets-game")
    keys = ("training.steps", "seed", "size", "source", "training.optimizer.eps")
    places = ["command line", str(folder / "top.yaml"), str(folder / "../a/low.yaml"), NAME, "default"]
    assert [resolved.origins[key] for key in keys] == places


@pytest.mark.parametrize("between", [False, True], ids=["at once", "by a step that names no method"])
def test_another_method_takes_nothing_from_that_of_its_base(between: bool, tmp_path: Path) -> None:
    """Mutations: merged all the same; only what lies just below is looked at."""
    step = f"base: {NAME}\nname: step\nmethod:\n  queries: 30\n  width: 48\n"
    base = "step.yaml" if between else NAME
    folder = written(tmp_path, step=step, mine=f"base: {base}\nname: mine\nmethod:\n  name: mask2former\n")
    resolved = resolve(folder / "mine.yaml")
    plain = Recipe.load(NAME).change(method={"name": "mask2former"}).method
    assert resolved.recipe.method == type(plain)() != plain
    given = {key for key, origin in resolved.origins.items() if key.startswith("method.") and origin != "default"}
    assert given == {"method.name"}


def test_a_group_that_a_base_gives_and_a_recipe_takes_away_leaves_no_origin(tmp_path: Path) -> None:
    folder = written(tmp_path, mine=f"base: {NAME}\nname: mine\nmethod:\n  context_decoder: null\n")
    assert resolve(folder / "mine.yaml").origins["method.context_decoder"] == str(folder / "mine.yaml")
    again = resolve(folder / "mine.yaml", ["method.context_decoder.layers=2"])
    assert again.origins["method.context_decoder.gamma"] == "default"  # mutation: only whole layers are looked at


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("tqdm-mini-street", "no recipe is called 'tqdm-mini-street': did you mean 'tqdm-mini-streets'"),
        ("other.yaml", r"no recipe file .*other\.yaml; `dgss recipes list` names the recipes"),
        ("3", "should be the name of a recipe, or a file's path from the folder of this one$"),
        ("", "should be the name of a recipe, or a file's path"),
        ("[a]", "should be the name of a recipe, or a file's path"),
        ("mine.yaml", r"a circle \(.*mine\.yaml -> .*mine\.yaml\); take one base out$"),
        ("../here/mine.yaml", r"a circle \(.*mine\.yaml -> .*mine\.yaml\); take one base out$"),
        ("round.yaml", r"recipe .*round\.yaml: base = 'mine\.yaml': a circle \(.* -> .*round\.yaml -> .*\)"),
        ("broken.yaml", r"broken\.yaml is no YAML: line 1, column 5"),
        ("empty.yaml", "holds no recipe"),
        ("x" * 300, "File name too long"),
        ("~nobody-of-this-name/x", "home directory"),
        ("odd.yaml", r"odd\.yaml as text: "),
    ],
)
def test_a_base_that_cannot_be_had_is_one_line_with_file_and_mend(base: str, reason: str, tmp_path: Path) -> None:
    texts = {"mine": f"base: {base}\nname: mine\n", "round": "base: mine.yaml\n", "broken": "a: [", "empty": ""}
    folder = written(tmp_path / "here", **texts)
    (folder / "odd.yaml").write_bytes(b"\xff")
    with pytest.raises(RecipeError, match=reason) as error:
        Recipe.load(folder / "mine.yaml")
    assert re.match(r"recipe .*(mine|round)\.yaml: base = ", str(error.value)) and "\n" not in str(error.value)


def test_a_base_stands_in_files_alone() -> None:
    """A recipe that came with weights or a run must not make anything else be read."""
    with pytest.raises(RecipeError, match=rf"base = '{NAME}': unknown key"):
        Recipe.parse(f"base: {NAME}\nname: mine\n", "file")
    with pytest.raises(RecipeError, match=rf"base = '{NAME}': unknown key"):
        Recipe.load(NAME, [f"base={NAME}"])


VARIANTS = [recipe.name for recipe in library.list_recipes() if recipe.variant]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_its_base_with_what_it_gives(name: str, tmp_path: Path) -> None:
    given = library.parse(library.show_recipe(name), name)
    base = Recipe.load(given.pop("base"))
    groups = {key: given[key] for key in ("method", "tower") if key in given}
    recipe = Recipe.load(name)
    assert recipe == base.change(**groups, name=name, summary=given["summary"], expected=None) and groups
    changed = {line.split(" was ")[0] for line in differences(base, recipe, [*library.OWN, "method.context_decoder"])}
    assert changed <= library.leaves(groups).keys()  # mutation: a value that the base has already
    assert len(given["summary"]) <= 64  # one line of the list
    assert Recipe.load(library.copy_recipe(name, tmp_path)) == recipe


def test_variants_are_listed_last() -> None:
    names = [recipe.name for recipe in library.list_recipes()]
    assert set(names) == set(PRESETS) and names[-len(VARIANTS) :] == VARIANTS
    assert len(VARIANTS) == 12 and not {NAME, "tqdm-mini-camvid", "mask2former-mini-streets"} & set(VARIANTS)


def test_on_a_terminal_variants_stand_below_a_line_of_their_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-12:]] == VARIANTS  # elsewhere no line
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    list_()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-12:]] == VARIANTS and max(map(len, lines)) <= 100
    assert lines[-13].startswith("variants") and lines[-14] == ""


def test_a_tower_of_another_name_keeps_nothing_of_the_old_one() -> None:
    """Its weights would mean something else."""
    other = Recipe.load("tqdm-clip-b-gta5", ["tower.name=mini", "method.frozen_copy=eval", "method.contexts=4"])
    assert other.tower == MiniSettings()
    back = Recipe.load("tqdm-mini-no-prior", ["tower.name=open_clip"])
    assert back.tower == OpenClipSettings()
    assert Recipe.load("tqdm-clip-b-gta5", ["tower.name=open_clip"]).tower.size == 512


PUBLISHED = {  # specs of the released program: towers, prompts, weights of the losses, schedule
    "tqdm-clip-b-gta5": {
        "tower.model": "ViT-B-16-quickgelu", "tower.weights": "openai", "tower.size": 512, "tower.taps": [3, 5, 7, 11],
        "tower.positions": "bilinear", "tower.double_class": True, "tower.text_length": 10, "tower.drop_path": 0.1,
        "method.contexts": 5, "method.frozen_copy": "train", "method.embedding_decay": True,
        "training.optimizer.lr": 1e-5, "training.optimizer.weight_decay": 1e-4,
    },
    "tqdm-eva02-l-gta5": {
        "tower.model": "EVA02-L-14-336", "tower.weights": "merged2b_s6b_b61k", "tower.taps": [7, 11, 15, 23],
        "tower.positions": "bicubic", "tower.double_class": False, "tower.text_length": 13, "tower.drop_path": 0.0,
        "method.contexts": 8, "method.embedding_decay": True,
        "training.optimizer.lr": 1e-5, "training.optimizer.weight_decay": 1e-4,
    },
    "tqdm-eva02-l-cityscapes": {
        "tower.model": "EVA02-L-14-336", "tower.text_length": 13, "method.contexts": 8, "method.embedding_decay": False,
        "training.optimizer.lr": 1e-4, "training.optimizer.weight_decay": 1e-5, "source": "cityscapes",
    },
    "tqdm-clip-b-cityscapes": {  # not released: the rate that the authors advise, else as the two beside it
        "tower.model": "ViT-B-16-quickgelu", "tower.weights": "openai", "tower.taps": [3, 5, 7, 11],
        "tower.positions": "bilinear", "tower.double_class": True, "tower.text_length": 10, "tower.drop_path": 0.1,
        "method.contexts": 5, "method.frozen_copy": "train", "method.embedding_decay": False,
        "training.optimizer.lr": 1e-4, "training.optimizer.weight_decay": 1e-5, "source": "cityscapes",
    },
}  # fmt: skip
ALL_PUBLISHED = {
    "tower.name": "open_clip", "tower.frozen": False, "size": [512, 512], "normalize": None,
    "method.template": "a clean origami of a {}", "method.context_decoder.gamma": "reference",
    "method.context_decoder.width": 256, "method.context_decoder.heads": 4, "method.context_decoder.layers": 3,
    "method.context_decoder.dropout": 0.1, "method.pixel_mean": "all", "method.temperature": 0.07,
    "method.language_weight": 1.0, "method.vision_language_weight": 1.0, "method.vision_weight": 1.0,
    "method.mask_prior": "none", "method.tower_lr_scale": 0.1, "method.pixel_ffn": 2048,
    "method.mask_losses.class_weight": 2.0, "method.mask_losses.mask_weight": 5.0,
    "method.mask_losses.dice_weight": 5.0, "method.mask_losses.no_object": 0.1, "method.mask_losses.points": 12544,
    "method.mask_losses.oversample": 3.0, "method.mask_losses.importance": 0.75,
    "method.mask_losses.per_process": True, "method.mask_losses.empty_counts_one": False,
    "augment.scale_min": 0.5, "augment.scale_max": 2.0, "augment.class_limit": 0.75,
    "augment.flip": 0.5, "augment.scale_base": None, "augment.brightness": 32.0, "augment.contrast": 0.5,
    "augment.saturation": 0.5, "augment.hue": 18, "augment.jitter": 0.5, "training.steps": 20000,
    "training.batch_size": 8, "training.clip_norm": None, "training.precision": "float32",
    "training.optimizer.schedule": "poly",
    "training.optimizer.power": 0.9, "training.optimizer.min_lr": 1e-6, "training.optimizer.warmup_steps": 1500,
    "training.optimizer.warmup_ratio": 1e-6, "inference.window": [512, 512], "inference.stride": [341, 341],
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_released_recipe_has_every_value_of_the_released_program(name: str) -> None:
    values = resolve(name).values()
    wanted = ALL_PUBLISHED | PUBLISHED[name]
    assert {key: values.get(key) for key in wanted} == wanted


SPARED = {  # what stands in a clean recipe in place of the released one's value
    "method.context_decoder.gamma": 1e-4, "method.pixel_mean": "labelled", "method.mask_losses.per_process": False,
}  # fmt: skip
CLIP_SPARED = SPARED | {"tower.double_class": False, "method.frozen_copy": "eval"}
EVA_SPARED = SPARED | {"size": [504, 504], "inference.window": [504, 504]}
CLEAN = {
    "tqdm-clip-b-gta5": CLIP_SPARED | {"training.optimizer.min_lr": 1e-7},
    "tqdm-eva02-l-gta5": EVA_SPARED | {"training.optimizer.min_lr": 1e-7},
    "tqdm-clip-b-cityscapes": CLIP_SPARED,  # its floor is below the tower's rate as it is
    "tqdm-eva02-l-cityscapes": EVA_SPARED,
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_recipe_differs_from_the_released_one_in_its_oversights_alone(name: str) -> None:
    base, clean = Recipe.load(name), Recipe.load(f"{name}-clean")
    changed = {line.split(" was ")[0] for line in differences(base, clean, library.OWN)}
    values = resolve(f"{name}-clean").values()
    assert {key: values[key] for key in changed} == CLEAN[name]


def test_the_clean_crop_is_seen_whole_and_on_the_same_grid() -> None:
    names = ("tqdm-eva02-l-gta5", "tqdm-eva02-l-gta5-clean")
    assert [divmod(side, 14) for name in names for side in Recipe.load(name).size] == [(36, 8)] * 2 + [(36, 0)] * 2

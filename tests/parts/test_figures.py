"""The parts of `scripts/make_figures.py` that need no trained run: which scene, which numbers, which lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from dgss.errors import DataError, DgssError


@pytest.fixture
def figures(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("make_figures")


@pytest.fixture
def pictures(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("figure_pictures")


def test_the_scene_with_most_of_a_class_is_shown(figures: ModuleType) -> None:
    labels = torch.full((4, 6, 8), 255)
    labels[1, :2], labels[2, :3], labels[3, 3:] = 13, 13, 13
    assert figures.best_scene(labels, 13) == 2  # the first of equal ones
    with pytest.raises(DataError, match="class 5 is in none of 4 scenes"):
        figures.best_scene(labels, 5)


def test_only_finished_runs_count(figures: ModuleType, tmp_path: Path) -> None:
    for name in ("a-seed0", "a-seed1", "ab-seed0"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"no finished run .*a-seed0"):
        figures.seeds_of(tmp_path, "a")
    for name in ("a-seed1", "ab-seed0"):
        (tmp_path / name / "model.safetensors").touch()
    assert [run.name for run in figures.seeds_of(tmp_path, "a")] == ["a-seed1"]


def test_the_source_is_marked(figures: ModuleType) -> None:
    none = torch.zeros(0)
    domains = [figures.Domain(look, none, none) for look in ("game", "fog")]
    assert figures.titles(domains) == ["game (trained on)", "fog"]


def test_every_row_of_the_streets_has_its_name(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    making = script("make_pictures")
    (height, width), looks = making.SIZE, len(making.LOOKS)
    monkeypatch.setattr(making, "contact_sheet", lambda *_: np.full((looks * height, 4 * width, 3), 7, np.uint8))
    shown = np.asarray(making.streets_picture())
    names, streets = shown[:, : making.MARGIN], shown[:, making.MARGIN :]
    assert (streets == 7).all() and streets.shape[1] == 4 * width
    assert (names.reshape(looks, -1).min(1) < 128).all()
    assert (names[:, 0] == 255).all()  # the longest name has room


def test_the_table_says_means_and_spreads(figures: ModuleType) -> None:
    one = np.array([[[0.5, 0.25], [0.1, 0.2], [0.3, 0.6]]])  # (1 seed, 3 domains, m = 0 and 1)
    table = figures.clarity_table({"with x": one, "without x": one / 2}, ["game", "fog", "rain"]).splitlines()
    assert table[0] == "| domain | with, m = 0 | with, m = 1 | without, m = 0 | without, m = 1 |"
    assert table[2] == "| game | 0.500 | 0.250 | 0.250 | 0.125 |"
    assert table[5] == "| mean of targets | 0.200 | 0.400 | 0.100 | 0.200 |"
    three = np.concatenate([one, one + 0.1, one + 0.2])
    mixed = figures.clarity_table({"with x": three, "without x": one}, ["game", "fog", "rain"]).splitlines()
    assert mixed[2] == "| game | 0.600 ± 0.100 | 0.350 ± 0.100 | 0.500 | 0.250 |"


def test_a_page_keeps_what_others_wrote(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    table, page = script("ablation_table"), tmp_path / "ablations.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n", encoding="utf-8")
    new = table.with_between(page, "<!-- a -->", "<!-- /a -->", "new")
    assert new == "before\n<!-- a -->\nnew\n<!-- /a -->\nafter\n"
    page.write_text("<!-- /a --> the wrong way round <!-- a -->", encoding="utf-8")
    with pytest.raises(DgssError, match="lacks the lines"):
        table.with_between(page, "<!-- a -->", "<!-- /a -->", "new")


def test_figures_without_a_page_are_refused_before_any_work(figures: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DgssError, match=r"ablations\.md cannot be read"):
        figures.make(tmp_path / "no runs", tmp_path, "car")


def test_numbers_are_rounded_wherever_they_stand(figures: ModuleType) -> None:
    assert figures.rounded({"a": [(0.123456, 2.0)], "b": "text"}) == {"a": [[0.1235, 2.0]], "b": "text"}


def test_a_saved_heat_map_has_its_exact_colours(pictures: ModuleType, tmp_path: Path) -> None:
    """Equal values have equal colours on the map and on its scale, whatever photographs stand beside."""
    values = np.linspace(-0.2, 0.4, 64, dtype=np.float32)[None].repeat(32, 0)
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    tiles = [pictures.Tile(noise, "photo"), pictures.Tile(pictures.heat(values, -0.2, 0.4))]
    pictures.save(pictures.sheet([tiles], pictures.colour_bar(140, -0.2, 0.4, "scale")), tmp_path / "new" / "a.png")
    shown = np.asarray(Image.open(tmp_path / "new" / "a.png").convert("RGB"))
    wide = 64 + 12 + 64
    assert shown.shape[1] == wide
    assert (shown[34:66, 64:76] == 255).all()  # paper stays white
    np.testing.assert_array_equal(shown[34:66, -64:], pictures.heat(values, -0.2, 0.4))
    low, high = pictures.heat(np.array([[-9, 9]], np.float32), -0.2, 0.4)[0]
    assert low.tolist() == pictures.HEAT[0].tolist() and high.tolist() == pictures.HEAT[-1].tolist()

"""A model scored on a domain as its protocol says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgss.data.dataset import Dataset, read_image
from dgss.data.domains import domain
from dgss.errors import DataError
from dgss.evaluation.evaluate import DomainResult, evaluate_domain
from dgss.evaluation.panels import compose_panels, save_panels
from dgss.evaluation.protocols import Protocol, View, protocol
from dgss.inference.predictor import Model
from dgss.inference.windows import InferenceSettings
from dgss.labels import label_space
from tests.parts.standin import ColourMethod, write_camvid, write_streets

CITY, CAMVID = label_space("cityscapes19"), label_space("camvid11")


def model(**settings: object) -> Model:
    return Model(ColourMethod(CITY), read_image, InferenceSettings(**settings))  # type: ignore[arg-type]


def streets(root: Path, count: int = 5) -> Dataset:
    write_streets(root, count, split="val")
    return Dataset(domain("streets-game"), root, "val")


def scored(root: Path, rule: Protocol | None = None, **options: object) -> DomainResult:
    return evaluate_domain(model(), streets(root), rule or protocol("drawn"), **options)  # type: ignore[arg-type]


def test_a_model_that_knows_the_truth_scores_a_hundred(tmp_path: Path) -> None:
    result = scored(tmp_path)
    assert result.miou == 100 and result.images == 5 and result.name == "streets-game"
    assert set(result.per_class) == set(CITY.names)


def test_every_second_row_and_column_is_scored(tmp_path: Path) -> None:  # mutation: stride on one of the two
    data = streets(tmp_path)
    for pair in data.pairs:  # spoil what the protocol does not look at
        label = np.array(Image.open(pair.label))
        label[1::2] = (label[1::2] + 1) % 19
        label[:, 1::2] = (label[:, 1::2] + 1) % 19
        Image.fromarray(label).save(pair.label)
    result = evaluate_domain(model(), data, protocol("drawn"))
    assert result.miou == 100 and result.confusion.matrix.sum() == 5 * 16 * 32
    whole = Protocol("whole", {"streets-*": View()})
    assert evaluate_domain(model(), Dataset(data.domain, tmp_path, "val"), whole).miou < 60


def test_19_classes_fold_into_11_after_the_arg_max(tmp_path: Path) -> None:  # mutation: fold left out, or labels folded
    write_camvid(tmp_path)
    data = Dataset(domain("camvid"), tmp_path, "test")
    plain = Protocol("plain", {"camvid": View(split="test")})
    result = evaluate_domain(model(), data, plain)
    assert result.miou > 97 and result.labels is CAMVID and result.confusion.matrix.shape == (11, 11)
    scrambled = evaluate_domain(model(), data, plain, fold=CITY.fold(CAMVID)[(np.arange(256) + 1) % 19])
    assert scrambled.miou < 50


def test_real_frames_are_looked_at_in_the_size_of_the_protocol(tmp_path: Path) -> None:
    write_camvid(tmp_path, size=(360, 480))
    ready = model()
    result = evaluate_domain(ready, Dataset(domain("camvid"), tmp_path, "test"), protocol("drawn"))
    assert ready.method.calls == [(3, 3, 144, 192)]
    assert result.confusion.matrix.sum() == 3 * 144 * 192
    assert result.panels[0].image.shape == (144, 192, 3)


def test_images_of_other_sizes_go_apart(tmp_path: Path) -> None:  # mutation: stacked blindly
    folder = write_streets(tmp_path, 3, split="val")
    for kind in ("leftImg8bit", "gtFine"):
        for file in (folder / kind).rglob("*000001_*"):
            Image.fromarray(np.asarray(Image.open(file))[:24]).save(file)
    ready = model()
    assert evaluate_domain(ready, Dataset(domain("streets-game"), tmp_path, "val"), protocol("drawn")).miou == 100
    assert ready.method.calls == [(1, 3, 32, 64), (1, 3, 24, 64), (1, 3, 32, 64)]


def test_grouping_and_progress_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    together = scored(tmp_path, on_image=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(1, 6)]
    monkeypatch.setattr("dgss.evaluation.evaluate._AT_ONCE", 1)
    np.testing.assert_array_equal(scored(tmp_path).confusion.matrix, together.confusion.matrix)


def test_panels_are_spread_over_the_set(tmp_path: Path) -> None:  # mutation: the first ones
    result = scored(tmp_path, panels=2)
    assert [panel.name[-13:-7] for panel in result.panels] == ["000001", "000003"]
    assert not scored(tmp_path, panels=0).panels and len(scored(tmp_path, panels=9).panels) == 5


def test_a_panel_shows_image_truth_and_prediction(tmp_path: Path) -> None:
    panels = scored(tmp_path, panels=2).panels
    row = panels[0].compose()
    np.testing.assert_array_equal(row[:, :64], panels[0].image)
    np.testing.assert_array_equal(row[:, 70:134], CITY.colour(panels[0].truth))
    np.testing.assert_array_equal(row[:, 140:], CITY.colour(panels[0].prediction))
    save_panels(tmp_path / "predictions" / "streets-game.png", panels)
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "predictions" / "streets-game.png")), compose_panels(panels)
    )


def test_a_stray_label_stops_with_its_file(tmp_path: Path) -> None:
    data = streets(tmp_path)
    Image.fromarray(np.full((32, 64), 42, np.uint8)).save(data.pairs[2].label)
    with pytest.raises(DataError, match=r"labelTrainIds\.png: value 42 in 2048 pixels"):
        evaluate_domain(model(), data, protocol("drawn"))


def test_protocols_are_met_by_name() -> None:
    assert protocol("drawn").view("streets-fog") == View(split="val", stride=2, usual=(128, 256))
    with pytest.raises(DataError, match="drawn"):
        protocol("drwan")
    with pytest.raises(DataError, match="no rule for 'gta5'"):
        protocol("drawn").view("gta5")


def test_a_score_carries_the_size_it_was_made_at(tmp_path: Path) -> None:  # mutation: always `drawn`
    result = scored(tmp_path)
    assert result.size == (32, 64) and result.rule == "drawn-64x32"
    rule = protocol("drawn")
    assert rule.scored_as("streets-game", (128, 256)) == rule.scored_as("camvid", (144, 192)) == "drawn"
    assert rule.scored_as("streets-game", None) == "drawn-mixed"


def test_a_score_says_in_words_how_it_was_made(tmp_path: Path) -> None:  # mutation: windows or flips untold
    rule = protocol("drawn")
    assert rule.view("streets-fog").words == (
        "images of the val split at their own size, every second row and column counted"
    )
    assert rule.view("camvid").words == "images of the test split resized to 192x144, every pixel counted"
    assert View(stride=8).words.endswith("every 8th row and column counted")
    data = streets(tmp_path)
    plain = evaluate_domain(model(), data, rule).how
    assert plain == rule.view("streets-game").words
    told = evaluate_domain(model(window=(16, 32), flip=True), data, rule).how
    assert told == f"{plain}, in windows of 32x16, averaged with the mirrored image"

"""An image in, a segmentation out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dgss.data.dataset import read_image
from dgss.errors import DataError, DeviceError
from dgss.inference.predictor import Model, Segmentation
from dgss.inference.windows import InferenceSettings
from dgss.labels import label_space
from tests.parts.standin import ColourMethod, blocks, paint

CITY = label_space("cityscapes19")
LABEL = blocks(32, 48, 19, seed=0)
IMAGE = paint(LABEL, "cityscapes19")


def model(settings: InferenceSettings | None = None) -> Model:
    return Model(ColourMethod(CITY).train(), read_image, settings)


def test_a_path_an_image_and_an_array_are_labelled_alike(tmp_path: Path) -> None:  # mutation: BGR, no division by 255
    Image.fromarray(IMAGE).save(tmp_path / "a street.png")
    for source in (tmp_path / "a street.png", str(tmp_path / "a street.png"), Image.fromarray(IMAGE), IMAGE):
        found = model().predict(source)
        np.testing.assert_array_equal(found.labels, LABEL)
        assert found.labels.dtype == np.uint8 and found.classes is CITY
        assert found.scores is not None and found.scores.shape == (19, 32, 48) and found.scores.dtype == np.float32
        np.testing.assert_array_equal(found.image, IMAGE)
    assert model().predict(IMAGE, with_scores=False).scores is None


def test_several_images_are_labelled_one_at_a_time() -> None:  # mutation: all read at once
    reads: list[int] = []

    def read(source: object) -> np.ndarray:
        reads.append(1)
        return IMAGE

    found = Model(ColourMethod(CITY), read).predict(["a", "b", "c"])
    assert isinstance(found, Iterator) and not reads
    assert isinstance(next(found), Segmentation) and len(reads) == 1
    assert len(list(found)) == 2


def test_the_method_is_in_eval_and_keeps_no_graph() -> None:  # mutation: train mode, gradients on
    ready = model()
    assert not ready.method.training
    scores = ready.scores(torch.rand(2, 3, 17, 23))
    assert scores.shape == (2, 19, 17, 23) and not scores.requires_grad


def test_wrong_tensors_are_refused_at_the_door() -> None:
    for wrong in (torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(DataError, match="images must be"):
            model().scores(wrong)


def test_a_short_edge_is_what_the_model_sees_and_not_what_comes_out() -> None:  # mutation: scores left small
    small = model(InferenceSettings(short_edge=16))
    assert small.predict(IMAGE).labels.shape == (32, 48)
    tall = small.predict(np.ascontiguousarray(IMAGE.transpose(1, 0, 2)))
    assert tall.labels.shape == (48, 32)
    assert small.method.calls == [(1, 3, 16, 24), (1, 3, 24, 16)]


@pytest.mark.parametrize("change", [{"window": (16, 16)}, {"flip": True}, {"window": (16, 16), "stride": (8, 16)}])
def test_windows_and_flips_are_used(change: dict[str, object]) -> None:  # mutation: settings dropped
    changed = model(InferenceSettings(**change))  # type: ignore[arg-type]
    np.testing.assert_array_equal(changed.predict(IMAGE).labels, LABEL)
    plain = model()
    plain.predict(IMAGE)
    assert changed.method.calls != plain.method.calls


def test_overlay_blends_and_draws_borders() -> None:
    found = model().predict(IMAGE)
    shown = found.overlay(strength=0.5)
    assert shown.shape == IMAGE.shape and shown.dtype == np.uint8
    inner = np.zeros_like(LABEL, bool)
    inner[1:-1, 1:-1] = (LABEL[1:-1, 1:-1] == LABEL[1:-1, 2:]) & (LABEL[1:-1, 1:-1] == LABEL[2:, 1:-1])
    np.testing.assert_array_equal(shown[inner], IMAGE[inner])  # the picture is painted in the classes' colours
    assert (shown[~inner & (LABEL != 255)].mean() > IMAGE[~inner].mean()).all(), "borders are light"
    np.testing.assert_array_equal(found.image, IMAGE)
    grey = Segmentation(LABEL, None, CITY, np.full_like(IMAGE, 100)).overlay(strength=0.25)
    np.testing.assert_allclose(grey[inner], 75 + 0.25 * IMAGE[inner], atol=1)


def test_a_legend_names_the_classes_found() -> None:
    shown = Segmentation(np.full((32, 48), 13, np.uint8), None, CITY, IMAGE).overlay(legend=True)
    strip = shown[32:]
    assert strip.shape[1:] == (48, 3) and strip.shape[0] > 0
    assert (strip == CITY.colours[13]).all(-1).sum() > 50, "the swatch of the class"
    assert not (strip == CITY.colours[0]).all(-1).any(), "a class that is not there"


def test_saved_labels_come_back_with_their_colours(tmp_path: Path) -> None:  # mutation: colours saved, palette off
    labels = LABEL.copy()
    labels[0, 0] = 255
    Segmentation(labels, None, CITY, IMAGE).save(tmp_path / "new folder" / "out.png")
    read = Image.open(tmp_path / "new folder" / "out.png")
    np.testing.assert_array_equal(np.asarray(read), labels)
    np.testing.assert_array_equal(np.asarray(read.convert("RGB")), CITY.colour(labels))


def test_labels_are_not_saved_where_they_would_be_lost(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.png"):
        Segmentation(LABEL, None, CITY, IMAGE).save(tmp_path / "out.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flip", [False, True])
def test_labels_enlarged_in_strips_are_the_same(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (83, 120, 3), np.uint8)
    small = model(InferenceSettings(short_edge=24, flip=flip))
    whole = small.predict(image)
    assert whole.scores is not None and np.array_equal(whole.scores.argmax(0), whole.labels)
    monkeypatch.setattr("dgss.inference.windows._STRIP", 19 * 120 * 7)
    strips = small.predict(image, with_scores=False)
    assert strips.scores is None and np.array_equal(strips.labels, whole.labels)
    again = small.predict(image).scores
    assert again is not None
    np.testing.assert_allclose(
        again, whole.scores, rtol=1e-5
    )  # exp of vectors of another length differs in its last bit


@pytest.mark.parametrize("shape", [(2, 2000), (100, 1601)])
def test_a_sliver_is_refused_before_it_is_enlarged(shape: tuple[int, int]) -> None:  # mutation: no limit
    ready = model(InferenceSettings(short_edge=144))
    with pytest.raises(DataError, match="at most 16:1"):
        ready.predict(np.zeros((*shape, 3), np.uint8))
    with pytest.raises(DataError, match="million pixels"):
        model(InferenceSettings(short_edge=9000)).predict(IMAGE)
    assert not ready.method.calls


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_a_lack_of_main_memory_is_a_foreseen_failure(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise error

    ready = model()
    monkeypatch.setattr(ready.method, "forward", full)
    with pytest.raises(DeviceError, match="not enough memory"):
        ready.predict(IMAGE)
    with pytest.raises(DeviceError, match="not enough memory"):
        ready.scores(torch.rand(1, 3, 8, 8))

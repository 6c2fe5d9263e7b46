"""An image in, a segmentation out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dgss.data.dataset import read_image
from dgss.errors import DataError, DeviceError
from dgss.inference.predictor import Model, Segmentation, letters
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


def test_tensors_of_any_float_type_are_taken() -> None:  # mutation: torch's own words on two types
    images = torch.rand(1, 3, 8, 8).half()
    expected = model().scores(images.float())
    for kind in (torch.float16, torch.float64):
        assert torch.equal(model().scores(images.to(kind)), expected)
    assert model().scores(images.float().clamp(0, 1) * (1 + 1e-6)).shape == expected.shape


@pytest.mark.parametrize("value", [255.0, -2.1])
def test_values_outside_the_range_are_refused(value: float) -> None:  # mutation: labelled as if they were bright
    images = torch.rand(1, 3, 8, 8)
    images[0, 1, 2, 3] = value
    with pytest.raises(DataError, match=r"^images must lie in \[0, 1\], .*divide"):
        model().scores(images)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_counted_and_placed(value: float) -> None:  # mutation: "divide by 255"
    images = torch.rand(2, 3, 8, 8)
    images[1, 2, 5, 6] = images[1, 0, 7, 1] = value
    with pytest.raises(
        DataError, match=r"NaN or infinity in 2 of 384 values, first in image 1, row 5, column 6; mend"
    ) as error:
        model().scores(images)
    assert "255" not in str(error.value) and "\n" not in str(error.value)
    model().scores(images.nan_to_num(0, 1, 0))  # as the message says


@pytest.mark.parametrize("source", [torch.rand(3, 8, 8), b"x"])
def test_what_looks_like_several_images_and_is_none_is_refused_at_once(source: object) -> None:
    """mutation: an iterator that fails when it is asked"""
    with pytest.raises(DataError, match="should be a path, a Pillow image or an array"):
        model().predict(source)  # type: ignore[call-overload]


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
    label = blocks(64, 96, 19, seed=0)
    image = paint(label, "cityscapes19")
    found = model().predict(image)
    shown = found.overlay(strength=0.5)
    assert shown.shape == image.shape and shown.dtype == np.uint8
    inner = np.zeros_like(label, bool)
    inner[1:-1, 1:-1] = (label[1:-1, 1:-1] == label[1:-1, 2:]) & (label[1:-1, 1:-1] == label[2:, 1:-1])
    np.testing.assert_array_equal(shown[inner], image[inner])  # the picture is painted in the classes' colours
    assert (shown[~inner & (label != 255)].mean() > image[~inner].mean()).all(), "borders are light"
    np.testing.assert_array_equal(found.image, image)
    grey = Segmentation(label, None, CITY, np.full_like(image, 100)).overlay(strength=0.25)
    np.testing.assert_allclose(grey[inner], 75 + 0.25 * image[inner], atol=1)


def halves(height: int, width: int) -> Segmentation:
    """Road on the left, a traffic light on the right, grey."""
    label = np.repeat([[0, 6]], width // 2, 1).repeat(height, 0).astype(np.uint8)
    return Segmentation(label, None, CITY, np.full((height, width, 3), 100, np.uint8))


@pytest.mark.parametrize(("size", "thick"), [((48, 64), 0), ((100, 200), 1), ((1500, 2400), 2)])
def test_borders_fit_the_picture(size: tuple[int, int], thick: int) -> None:  # mutation: one pixel in every picture
    row = halves(*size).overlay()[size[0] // 2].astype(int)
    light = (row > row[[0, -1]].max(0)).all(-1)
    assert light.sum() == thick


@pytest.mark.parametrize(("size", "letters"), [((48, 64), 12), ((360, 480), 12), ((1800, 2400), 25)])
def test_a_legend_can_be_read_below_any_picture(size: tuple[int, int], letters: int) -> None:
    """mutation: as wide as a narrow picture, which cuts the names; letters of one size"""
    found = halves(*size)
    shown = found.overlay(legend=True)
    picture, strip = shown[: size[0]], shown[size[0] :]
    np.testing.assert_array_equal(picture[:, : size[1]], found.overlay())
    assert (picture[:, size[1] :] == 255).all(), "a narrow picture has a white margin"
    assert (strip[:, -1] == 255).all(), "no name is cut"
    for number in (0, 6):
        swatch = np.flatnonzero((strip == CITY.colours[number]).all(-1).any(1))
        assert letters * 0.7 < len(swatch) < letters * 1.4
    assert not (strip == CITY.colours[1]).all(-1).any(), "a class that is not there"


def test_letters_are_more_than_ascii() -> None:  # mutation: Pillow's own font, which shows a box for each of them
    boxes = {bytes(letters(12).getmask(letter)) for letter in "ßüé\uffff"}
    assert len(boxes) == 4


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
    # exp of vectors of another length differs in its last bit
    np.testing.assert_allclose(again, whole.scores, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 2000), (100, 1601)])
def test_a_sliver_is_refused_before_it_is_enlarged(shape: tuple[int, int]) -> None:  # mutation: no limit
    ready = model(InferenceSettings(short_edge=144))
    with pytest.raises(DataError, match="at most 16:1"):
        ready.predict(np.zeros((*shape, 3), np.uint8))
    with pytest.raises(DataError, match="million pixels"):
        model(InferenceSettings(short_edge=8192)).predict(IMAGE)
    assert not ready.method.calls


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 12 bytes"),
    ],
)
def test_a_lack_of_main_memory_is_a_foreseen_failure(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise error

    ready = model()
    monkeypatch.setattr(ready.method, "forward", full)
    with pytest.raises(DeviceError, match=r"^out of memory.*: shrink the image"):
        ready.predict(IMAGE)
    with pytest.raises(DeviceError, match=r"^out of memory.*: shrink the image"):
        ready.scores(torch.rand(1, 3, 8, 8))
    with pytest.raises(DeviceError, match=r"^out of memory.*: shrink the image"):
        Model(ColourMethod(CITY), full).predict("large.png")


@pytest.mark.parametrize("source", [5, None, [[1, 2], [3, 4]], b"x", torch.rand(3, 8, 8)])
def test_what_is_no_image_is_one_line(source: object) -> None:  # mutation: 'int' object is not iterable
    with pytest.raises(DataError, match="should be a path, a Pillow image or an array"):
        list(model().predict(source))  # type: ignore[call-overload]
    with pytest.raises(DataError, match=r"should be a path|must be"):
        model().scores(source)  # type: ignore[arg-type]

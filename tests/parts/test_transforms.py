"""Resize, crop, flip, colours, padding: formulas, and image and label kept together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dgss.data.transforms import (
    Crop,
    Jitter,
    TransformSettings,
    augment,
    choose_crop,
    draw_jitter,
    fit_size,
    pad,
    photometric,
    resize_label,
    scaled_size,
)
from dgss.errors import DataError
from tests.parts.standin import blocks, paint

PLAIN = TransformSettings(scale_min=1, scale_max=1, class_limit=1, jitter=0)
IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
ALL_COLOURS = np.stack(np.meshgrid(*[np.arange(0, 256, 15, np.uint8)] * 3), -1).reshape(18, -1, 3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(5, 70), width=st.integers(5, 70), rows=st.integers(3, 50), columns=st.integers(3, 50),
    limit=st.sampled_from([0.5, 0.75, 1.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_a_painted_image_stays_with_its_labels(
    height: int, width: int, rows: int, columns: int, limit: float, seed: int
) -> None:  # mutation: the image alone flipped, cropped elsewhere, padded at the left
    label = blocks(height, width, 19, seed)
    label[0, 0] = 255
    chosen = PLAIN.model_copy(update={"class_limit": limit})
    crop = augment(paint(label, "cityscapes19"), label, chosen, (rows, columns), rng(seed))
    assert crop.image.shape == (rows, columns, 3) and crop.label.shape == crop.valid.shape == (rows, columns)
    np.testing.assert_array_equal(crop.image, paint(crop.label, "cityscapes19"))
    assert (crop.label[~crop.valid] == 255).all()
    assert crop.valid.sum() == min(rows, height) * min(columns, width)


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.3, 2.0])
def test_scaling_keeps_image_and_labels_together(ratio: float) -> None:  # mutation: label scaled by another ratio
    label = blocks(96, 128, 19, seed=3, side=32)
    chosen = PLAIN.model_copy(update={"scale_min": ratio, "scale_max": ratio})
    crop = augment(paint(label, "cityscapes19"), label, chosen, (48, 64), rng(2))
    shown = paint(crop.label, "cityscapes19")
    inner = cv2.erode(np.ones_like(crop.label), np.ones((5, 5))) > 0
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            inner &= np.roll(crop.label, step, axis) == crop.label
    assert inner.mean() > 0.5
    np.testing.assert_array_equal(crop.image[inner], shown[inner])


def test_resizing_makes_no_new_label() -> None:  # mutation: bilinear labels
    label = np.where(blocks(50, 70, 2, 0) == 0, 3, 200).astype(np.uint8)
    for size in ((13, 17), (99, 140), (50, 71)):
        assert set(np.unique(resize_label(label, size))) <= {3, 200}


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((1024, 2048), (720, 1280), (640, 1280)),
        ((720, 1280), (1024, 2048), (1024, 1820)),
        ((1052, 1914), (540, 960), (528, 960)),
        ((760, 1280), (1080, 1920), (1080, 1819)),
        ((1280, 720), (1024, 2048), (1820, 1024)),
    ],
)
def test_fit_rule(size: tuple[int, int], scale: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit_size(size, scale) == expected  # numbers of mmcv.rescale_size; mutation: rounding down


def test_ratio_is_of_the_image_or_of_a_base() -> None:  # mutation: base ignored, truncation rounded
    assert scaled_size((61, 97), 1.3232) == (80, 127)
    assert scaled_size((360, 480), 0.5, base=(144, 192)) == (72, 96)
    assert scaled_size((3, 100), 0.01) == (1, 1)


def test_at_most_eleven_boxes_are_drawn_rows_first() -> None:  # mutation: ten, or columns first
    label = np.zeros((20, 30), np.uint8)
    asked: list[int] = []

    def draw(options: int) -> int:
        asked.append(options)
        return len(asked) // 2 % options

    assert choose_crop(label, (16, 16), 0.75, draw) == (10 % 5, 11 % 15)
    assert asked == [5, 15] * 11
    asked.clear()
    choose_crop(label, (16, 16), 1.0, draw)
    assert asked == [5, 15]


def test_a_crop_filled_by_one_class_is_refused() -> None:  # mutation: 255 counted as a class, >= for <
    label = np.zeros((8, 16), np.uint8)
    label[:, 4:8] = 255  # one class and ignored pixels are still one class
    label[:6, 8:] = 1  # exactly three quarters of the right half
    label[6:, 8:] = 2
    answers = iter([0, 0, 0, 8, 0, 3])
    assert choose_crop(label, (8, 8), 0.75, lambda _: next(answers)) == (0, 3)


def reference_linear(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return np.clip(image.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("first", [True, False])
def test_colours_follow_the_formulas_in_their_order(first: bool) -> None:  # mutation: rounding, order, wrong channel
    expected = reference_linear(ALL_COLOURS, 1, -11.3)
    if first:
        expected = reference_linear(expected, 1.37, 0)
    hsv = cv2.cvtColor(expected, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = reference_linear(hsv[..., 1], 0.61, 0)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    hsv = cv2.cvtColor(expected, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) - 18) % 180
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not first:
        expected = reference_linear(expected, 1.37, 0)
    drawn = Jitter(brightness=-11.3, contrast=1.37, contrast_first=first, saturation=0.61, hue=-18)
    np.testing.assert_array_equal(photometric(ALL_COLOURS, drawn), expected)


def test_no_draw_changes_nothing_and_inputs_stay() -> None:
    before = IMAGE.copy()
    np.testing.assert_array_equal(photometric(IMAGE, Jitter()), IMAGE)
    photometric(IMAGE, Jitter(10.0, 0.7, True, 0.5, 5))
    np.testing.assert_array_equal(IMAGE, before)


def test_jitter_stays_in_its_ranges_and_fills_them() -> None:  # mutation: half the range, upper bound of hue included
    drawn = [draw_jitter(TransformSettings(), rng(seed)) for seed in range(2000)]
    assert 0.45 < np.mean([jitter.contrast_first for jitter in drawn]) < 0.55
    for name, low, high in (("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5)):
        values = [getattr(jitter, name) for jitter in drawn if getattr(jitter, name) is not None]
        assert 900 < len(values) < 1100
        assert low <= min(values) < low + 0.02 * (high - low) and high - 0.02 * (high - low) < max(values) <= high
    assert {jitter.hue for jitter in drawn} == {None, *range(-18, 18)}


CHANGES = {
    "scale_min": 1.5, "scale_max": 0.9, "scale_base": (20, 30), "class_limit": 0.2, "flip": 1.0, "brightness": 90.0,
    "contrast": 0.1, "saturation": 0.1, "hue": 80, "jitter": 0.9,
}  # fmt: skip


@pytest.mark.parametrize("name", list(TransformSettings.model_fields))
def test_every_setting_changes_samples(name: str) -> None:  # mutation: a setting that nothing reads
    label = blocks(40, 60, 3, 0)

    def crops(chosen: TransformSettings) -> list[Crop]:
        return [augment(IMAGE, label, chosen, (24, 24), rng(seed)) for seed in range(8)]

    base = TransformSettings(flip=0.2, class_limit=0.9, jitter=0.5)
    changed = base.model_copy(update={name: CHANGES[name]})
    pairs = zip(crops(base), crops(changed), strict=True)
    assert any(not np.array_equal(one.image, other.image) for one, other in pairs)


def test_equal_generators_give_equal_samples() -> None:  # mutation: any global draw
    label = blocks(40, 60, 5, 0)
    one, other, third = (augment(IMAGE, label, TransformSettings(), (32, 32), rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.image, other.image)
    assert not np.array_equal(one.image, third.image)


def test_padding_is_black_ignored_and_not_valid() -> None:
    crop = pad(IMAGE, blocks(40, 60, 5, 0), (48, 64))
    assert (crop.image[40:] == 0).all() and (crop.label[:, 60:] == 255).all()
    assert crop.valid[:40, :60].all() and crop.valid.sum() == 40 * 60
    with pytest.raises(DataError, match="60x40"):
        pad(IMAGE, blocks(40, 60, 5, 0), (39, 64))


def test_settings_refuse_typos_and_nonsense() -> None:
    for wrong in ({"flipp": 1}, {"flip": 1.5}, {"scale_min": 3.0}, {"scale_min": 0.0}):
        with pytest.raises(ValidationError):
            TransformSettings(**wrong)  # type: ignore[arg-type]

"""Counts and scores against loops written out, and the rules where the field differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgss.errors import DataError
from dgss.evaluation.confusion import Confusion


def pair(seed: int, classes: int = 5, shape: tuple[int, int] = (13, 17)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label, prediction = rng.integers(0, classes, (2, *shape), np.uint8)
    label[rng.random(shape) < 0.2] = 255
    return label, prediction


def counted(*pairs: tuple[np.ndarray, np.ndarray], classes: int = 5) -> Confusion:
    confusion = Confusion(classes)
    for label, prediction in pairs:
        confusion.add(label, prediction)
    return confusion


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 19))
def test_counts_are_those_of_a_loop(seed: int, classes: int) -> None:  # mutation: rows and columns swapped
    label, prediction = pair(seed, classes, (4, 9))
    expected = np.zeros((classes, classes), np.int64)
    for truth, found in zip(label.ravel(), prediction.ravel(), strict=True):
        if truth != 255:
            expected[truth, found] += 1
    confusion = counted((label, prediction), classes=classes)
    np.testing.assert_array_equal(confusion.matrix, expected)
    for number in range(classes):
        both = expected[number, number]
        union = expected[number].sum() + expected[:, number].sum() - both
        share = confusion.iou()[number]
        assert np.isnan(share) if union == 0 else share == both / union


def test_truth_scores_a_hundred() -> None:
    label, _ = pair(0)
    confusion = counted((label, np.where(label == 255, 0, label)))
    assert confusion.miou() == confusion.pixel_accuracy() == 1
    assert (confusion.recall() == 1).all() and (confusion.precision() == 1).all()


def test_parts_add_to_the_whole_in_any_order() -> None:  # mutation: mean over images
    pairs = [pair(seed) for seed in range(4)]
    whole, half = counted(*pairs), counted(*pairs[2:])
    np.testing.assert_array_equal(counted(*pairs[::-1]).matrix, whole.matrix)
    half.merge(counted(*pairs[:2]))
    np.testing.assert_array_equal(half.matrix, whole.matrix)
    with pytest.raises(DataError):
        half.merge(Confusion(6))


def test_what_is_predicted_under_ignored_pixels_counts_for_nothing() -> None:  # mutation: 255 as a class
    label, prediction = pair(1)
    other = np.where(label == 255, 255, prediction)
    np.testing.assert_array_equal(counted((label, prediction)).matrix, counted((label, other)).matrix)
    nothing = counted((np.full_like(label, 255), prediction))
    assert nothing.matrix.sum() == 0 and np.isnan(nothing.miou()) and np.isnan(nothing.pixel_accuracy())
    assert np.isnan(nothing.mean_recall())


def test_a_class_that_nobody_has_is_left_out() -> None:  # mutation: mean over zeros
    label, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 2]])
    confusion = counted((label, prediction))
    np.testing.assert_array_equal(confusion.iou(), [1, 0.5, 0, np.nan, np.nan])
    assert confusion.miou() == 0.5, "2 is predicted and counts 0, 3 and 4 are left out"
    assert confusion.miou(present_only=True) == 0.75


def test_accuracies_are_over_what_is_labelled() -> None:  # mutation: a class that is only predicted counts 0
    confusion = counted((np.array([[0, 0, 0, 1]]), np.array([[0, 0, 2, 2]])))
    np.testing.assert_array_equal(confusion.recall(), [2 / 3, 0, np.nan, np.nan, np.nan])
    assert confusion.mean_recall() == pytest.approx(1 / 3) and confusion.pixel_accuracy() == 0.5


@pytest.mark.parametrize(("place", "value"), [("label", 5), ("label", 254), ("prediction", 5), ("prediction", 255)])
def test_stray_values_are_errors_that_count(place: str, value: int) -> None:  # mutation: dropped without a word
    arrays = {"label": np.zeros((3, 4), np.uint8), "prediction": np.zeros((3, 4), np.uint8)}
    arrays[place][1, :3] = value
    confusion = Confusion(5)
    with pytest.raises(DataError, match=rf"a/b\.png: {place} value {value} in 3 pixels"):
        confusion.add(arrays["label"], arrays["prediction"], "a/b.png")
    assert confusion.matrix.sum() == 0


def test_wider_integers_are_taken_and_what_does_not_fit_is_refused() -> None:  # mutation: wrapped to 8 bits
    label, prediction = pair(2)
    np.testing.assert_array_equal(
        counted((label.astype(np.int64), prediction.astype(np.int32))).matrix, counted((label, prediction)).matrix
    )
    for wrong in (label.astype(np.int64) + 256, label.astype(np.int64) - 256):
        with pytest.raises(DataError, match="do not fit"):
            counted((wrong, prediction))
    with pytest.raises(DataError, match="resize"):
        counted((label[1:], prediction))


def test_counts_stay_whole_beyond_32_bits() -> None:  # mutation: float32 or int32 counts
    confusion = Confusion(2)
    confusion.matrix[0, 0] = 2**40
    confusion.add(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    assert confusion.matrix[0, 0] == 2**40 + 1 and confusion.matrix.dtype == np.int64

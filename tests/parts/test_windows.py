"""Windows, their average, flips."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from dgss.inference.windows import InferenceSettings, average_views, plan, resize_scores, view_scores, window_scores


def place_blind(images: Tensor) -> Tensor:
    """A pointwise stand-in: the same pixel gets the same scores in any window."""
    return torch.stack([images.sum(1), images[:, 0] * 2, images[:, 1] - images[:, 2]], 1)


def place_bound(images: Tensor) -> Tensor:
    """Scores that depend on where in the window a pixel lies."""
    rows = torch.arange(images.shape[2]).view(1, -1, 1) + 0.25 * torch.arange(images.shape[3])
    return torch.stack([images.sum(1) + rows, images[:, 0] * rows], 1)


def images(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)), window=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    data=st.data(),
)  # fmt: skip
def test_windows_cover_the_image_and_stay_inside(
    size: tuple[int, int], window: tuple[int, int], data: st.DataObject
) -> None:  # mutation: last window not moved back, one window too few
    stride = data.draw(st.integers(1, window[0])), data.draw(st.integers(1, window[1]))
    seen = torch.zeros(size)
    for top, left, bottom, right in plan(size, window, stride):
        assert 0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]
        assert (bottom - top, right - left) == (min(window[0], size[0]), min(window[1], size[1]))
        seen[top:bottom, left:right] += 1
    assert (seen > 0).all()


def test_the_rule_of_the_reference() -> None:
    assert plan((1024, 2048), (512, 512), (341, 341))[-1] == (512, 1536, 1024, 2048)
    assert len(plan((1024, 2048), (512, 512), (341, 341))) == 3 * 6
    assert plan((33, 32), (32, 32), (21, 21)) == [(0, 0, 32, 32), (1, 0, 33, 32)]
    assert plan((20, 24), (32, 32), (21, 21)) == [(0, 0, 20, 24)]


def test_one_window_is_the_whole_image_to_the_bit() -> None:
    batch = images(2, 30, 41)
    whole = place_bound(batch)
    for window in (None, (30, 41), (64, 64)):
        assert torch.equal(window_scores(place_bound, batch, InferenceSettings(window=window)), whole)


def test_equal_scores_in_all_windows_come_out_as_they_are() -> None:  # mutation: overlap counted once
    batch = images(2, 37, 53)
    chosen = InferenceSettings(window=(16, 20), stride=(7, 9))
    torch.testing.assert_close(window_scores(place_blind, batch, chosen), place_blind(batch))


def test_windows_are_averaged_as_a_loop_would() -> None:  # mutation: last window wins
    batch, chosen = images(2, 23, 31), InferenceSettings(window=(12, 16), stride=(8, 8))
    total, count = torch.zeros(2, 2, 23, 31), torch.zeros(23, 31)
    for top, left, bottom, right in plan((23, 31), (12, 16), (8, 8)):
        total[:, :, top:bottom, left:right] += place_bound(batch[:, :, top:bottom, left:right])
        count[top:bottom, left:right] += 1
    for at_once in (1, 3, 8, 100):
        torch.testing.assert_close(window_scores(place_bound, batch, chosen, at_once), total / count)


def test_windows_go_through_the_model_together() -> None:  # mutation: one call a window
    calls: list[int] = []

    def counted(cuts: Tensor) -> Tensor:
        calls.append(len(cuts))
        return place_blind(cuts)

    window_scores(counted, images(1, 32, 48), InferenceSettings(window=(16, 16), stride=(16, 16)), at_once=4)
    assert calls == [4, 2]


def test_stride_is_two_thirds_unless_said() -> None:
    batch = images(1, 64, 64)
    default = window_scores(place_bound, batch, InferenceSettings(window=(32, 32)))
    assert torch.equal(default, window_scores(place_bound, batch, InferenceSettings(window=(32, 32), stride=(21, 21))))
    assert not torch.equal(
        default, window_scores(place_bound, batch, InferenceSettings(window=(32, 32), stride=(9, 9)))
    )


def test_averaging_over_flips_commutes_with_flipping() -> None:  # mutation: forget to flip back
    batch, chosen = images(2, 20, 33), InferenceSettings(flip=True, window=(16, 16))
    flipped = view_scores(place_bound, batch.flip(-1), chosen)
    assert torch.equal(flipped.flip(-1), view_scores(place_bound, batch, chosen))
    torch.testing.assert_close(flipped.sum(1), torch.ones(2, 20, 33))


def test_views_are_averaged_as_probabilities() -> None:  # mutation: mean of scores
    one, other = images(1, 4, 5), images(1, 4, 5) * 9
    expected = (one.softmax(1) + other.flip(-1).softmax(1)) / 2
    torch.testing.assert_close(average_views([one, other], [False, True]), expected)


def test_scores_come_in_the_size_asked_for() -> None:
    assert view_scores(place_blind, images(1, 20, 30), InferenceSettings(), (41, 59)).shape == (1, 3, 41, 59)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride": (8, 8)},
        {"window": (8, 8), "stride": (9, 8)},
        {"window": (0, 8)},
        {"window": (8, 8), "stride": (0, 8)},
    ],
)
def test_gaps_are_refused(wrong: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ValidationError):
        InferenceSettings(**wrong)  # type: ignore[arg-type]


def test_rows_are_enlarged_as_torch_enlarges_them() -> None:  # mutation: corners aligned, half a pixel off
    scores = torch.rand(1, 3, 7, 9)
    expected = resize_scores(scores, (40, 31))
    found = view_scores(lambda images: scores, torch.rand(1, 3, 7, 9), InferenceSettings(), (40, 31))
    torch.testing.assert_close(found, expected)

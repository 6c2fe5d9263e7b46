"""Sliding windows, their average, the way back to the original size and flips, against the reference program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from load import Golden
from torch import Tensor

from dgss.inference.windows import InferenceSettings, average_views, plan, resize_scores, view_scores, window_scores

pytestmark = pytest.mark.golden("slide")


def network(golden: Golden) -> Any:
    """The stand-in that the golden's notes describe: linear in the colours and in the place inside the window."""
    mix, bias, slope = (torch.from_numpy(golden.input(name)) for name in ("A", "b", "c"))

    def score(crops: Tensor) -> Tensor:
        height, width = crops.shape[-2:]
        rows = torch.arange(height, dtype=torch.float32)[:, None] / height
        columns = torch.arange(width, dtype=torch.float32) / width
        place = slope[:, 0, None, None] * rows + slope[:, 1, None, None] * columns  # (K, h, w)
        return torch.einsum("kc,bcij->bkij", mix, crops) + bias[:, None, None] + place

    return score


def looked_at(case: dict[str, Any]) -> InferenceSettings:
    return InferenceSettings(window=tuple(case["crop"]), stride=tuple(case["stride"]))


def test_windows_lie_where_the_reference_puts_them(golden: Golden) -> None:  # mutation: last window not moved back
    cases = golden.config["cases"]
    assert cases
    for case in cases:
        boxes = plan((case["H"], case["W"]), tuple(case["crop"]), tuple(case["stride"]))
        assert [list(box) for box in boxes] == case["windows_y1_x1_y2_x2"]


def test_scores_and_labels_are_those_of_the_reference(golden: Golden) -> None:  # mutation: coverage off by one
    for number, case in enumerate(golden.config["cases"]):
        image = torch.from_numpy(golden.input(f"image{number}"))
        scores = window_scores(network(golden), image, looked_at(case))
        golden.check(f"logits_window_size{number}", scores)
        scores = view_scores(network(golden), image, looked_at(case), tuple(case["ori"]))
        golden.check(f"logits_original_size{number}", scores)
        golden.check(f"argmax{number}", scores.argmax(1)[0].to(torch.uint8))
        golden.check(f"probabilities{number}_mean", scores.softmax(1).mean((2, 3)))


def test_views_are_averaged_as_the_reference_does(golden: Golden) -> None:  # mutation: flipped back the wrong way
    chosen, size = golden.config["augmentation"], tuple(golden.config["cases"][0]["ori"])
    images = [torch.from_numpy(golden.input(f"aug{number}")) for number in range(len(chosen["flips"]))]
    scores = [resize_scores(window_scores(network(golden), image, looked_at(chosen)), size) for image in images]
    mean = average_views(scores, [bool(flip) for flip in chosen["flips"]])
    golden.check("aug_probabilities", mean)
    golden.check("aug_argmax", mean.argmax(1)[0].to(torch.uint8))


def test_the_whole_image_in_one_go(golden: Golden) -> None:
    size = tuple(golden.config["cases"][0]["ori"])
    whole = view_scores(network(golden), torch.from_numpy(golden.input("image0")), InferenceSettings(), size)
    golden.check("whole_original_size0", whole)


def test_every_output_is_compared(golden: Golden) -> None:
    cases = range(len(golden.config["cases"]))
    per_case = ("logits_window_size{}", "logits_original_size{}", "argmax{}", "probabilities{}_mean")
    names = {name.format(case) for case in cases for name in per_case}
    assert set(golden.names()) == names | {"aug_probabilities", "aug_argmax", "whole_original_size0"}
    assert all(np.isfinite(golden.array(name)).all() for name in names)

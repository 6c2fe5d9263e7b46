"""Counts and scores against five metric programs on the same pairs, where their rule is ours."""

from __future__ import annotations

import numpy as np
import pytest
from load import Golden

from dgss.errors import DataError
from dgss.evaluation.confusion import Confusion
from dgss.evaluation.report import relative_performance
from dgss.labels import label_space

pytestmark = pytest.mark.golden("metrics")

CLEAN = ("plain", "allignore")
"""Cases in which every value is a class or ignored; the others hold stray labels or predictions."""


def count(golden: Golden, case: str, images: list[int] | None = None) -> Confusion:
    confusion = Confusion(golden.config["num_classes"])
    for number in range(len(golden.config["sizes_hw"])) if images is None else images:
        pair = golden.input(f"{case}/label{number}"), golden.input(f"{case}/prediction{number}")
        confusion.add(*pair, where=f"{case} {number}")
    return confusion


def compare(golden: Golden, values: dict[str, object]) -> None:
    """Checks those that the folder holds; at least one."""
    names = [name for name in golden.names() if name in values]
    assert names, f"none of {', '.join(values)} is in {golden.folder}"
    for name in names:
        golden.check(name, values[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CLEAN)
def test_areas_of_each_image(golden: Golden, case: str) -> None:  # mutation: rows and columns swapped
    for number in range(len(golden.config["sizes_hw"])):
        matrix = count(golden, case, [number]).matrix
        labelled, predicted, hit = matrix.sum(1), matrix.sum(0), np.diag(matrix)
        areas = {"intersect": hit, "union": labelled + predicted - hit, "pred": predicted, "label": labelled}
        compare(golden, {f"{case}.mmseg0.image{number}.{name}": value for name, value in areas.items()})


@pytest.mark.parametrize("case", CLEAN)
@pytest.mark.parametrize("program", ["mmseg0", "mmseg1"])
def test_scores_by_class(golden: Golden, program: str, case: str) -> None:  # mutation: absent classes as 0
    found = count(golden, case)
    values = {
        "aAcc": found.pixel_accuracy(),
        "IoU": found.iou(),
        "Acc": found.recall(),
        "Recall": found.recall(),
        "Precision": found.precision(),
        "summary.mIoU": 100 * found.miou(),
        "summary.aAcc": 100 * found.pixel_accuracy(),
        "summary.mAcc": 100 * found.mean_recall(),
    }
    compare(golden, {f"{case}.{program}.{name}": value for name, value in values.items()})


@pytest.mark.parametrize("case", CLEAN)
def test_counts_and_mean(golden: Golden, case: str) -> None:
    found = count(golden, case)
    values = {"hist": found.matrix, "IoU": found.iou(), "mIoU": found.miou()}
    compare(golden, {f"{case}.robustnet.{name}": value for name, value in values.items()})


@pytest.mark.parametrize("case", CLEAN)
def test_mean_over_labelled_classes_alone(golden: Golden, case: str) -> None:  # mutation: `present_only` unread
    found = count(golden, case)
    compare(golden, {f"{case}.detectron2.mIoU": found.miou(present_only=True)})
    classes = golden.config["num_classes"]
    np.testing.assert_array_equal(golden.array(f"{case}.detectron2.conf")[:classes, :classes].T, found.matrix)


@pytest.mark.parametrize("case", CLEAN)
def test_the_official_cityscapes_scores(golden: Golden, case: str) -> None:
    if golden.config["num_classes"] != 19 or f"{case}.cityscapes.IoU" not in golden.names():
        pytest.skip(f"{golden.folder.name} has no Cityscapes scores of case {case}")
    found, ids = count(golden, case), list(label_space("cityscapes19").raw_ids)
    compare(golden, {f"{case}.cityscapes.IoU": found.iou(), f"{case}.cityscapes.mIoU": found.miou()})
    np.testing.assert_array_equal(golden.array(f"{case}.cityscapes.conf")[np.ix_(ids, ids)], found.matrix)


@pytest.mark.parametrize("case", ["stray", "predvoid"])
def test_what_others_count_silently_is_an_error(golden: Golden, case: str) -> None:  # mutation: stray values dropped
    classes = golden.config["num_classes"]
    value = classes if case == "stray" else 255
    with pytest.raises(DataError, match=f"{case} 0: {'label' if case == 'stray' else 'prediction'} value {value} in"):
        count(golden, case)


def test_rpd_of_the_authors_table(golden: Golden) -> None:  # mutation: source among the targets
    rows = golden.meta["extra"]["rpd"]["rows"]
    assert rows
    for row in rows:
        targets = [miou for name, miou in row["miou"].items() if name != row["source"]]
        found = relative_performance(row["miou"][row["source"]], targets)
        assert found == pytest.approx(row["rpd"], abs=1e-9)
        assert found == pytest.approx(row["printed"], abs=golden.meta["extra"]["rpd"]["tolerance_to_printed"])

"""The report: its numbers, its table, its file, its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dgss.evaluation.confusion import Confusion
from dgss.evaluation.evaluate import DomainResult
from dgss.evaluation.panels import Panel
from dgss.evaluation.report import Report, relative_performance, write_html
from dgss.labels import LabelSpace, label_space
from tests.parts.standin import blocks, paint

CITY = label_space("cityscapes19")
HISTORY = [
    {"step": step, "loss": 9.0 / step, "terms": {"mask": 5.0 / step, "dice": 4.0 / step}, "seconds": 1.5 * step}
    for step in range(1, 60)
]


def result(name: str, right: float, labels: LabelSpace = CITY, panels: int = 2) -> DomainResult:
    """A result of which every class but the last two has IoU `right`; the last two do not occur."""
    confusion, classes = Confusion(labels), len(labels) - 2
    for number in range(classes):
        confusion.matrix[number, number] = round(1000 * right)
        confusion.matrix[number, (number + 1) % classes] = 500 - round(500 * right)
    kept = tuple(
        Panel(f"{name} {seed}", paint(blocks(32, 64, 11, seed), labels.name), *[blocks(32, 64, 9, seed)] * 2, labels)
        for seed in range(panels)
    )
    return DomainResult(name, "val", 24, confusion, labels, kept)


def report(**changes: object) -> Report:
    targets = {name: result(name, share) for name, share in (("streets-fog", 0.4), ("streets-night", 0.2))}
    values: dict[str, object] = {
        "targets": targets, "protocol": "drawn", "source": result("streets-game", 0.6), "source_name": "streets-game",
        "name": "tqdm-mini-streets", "seed": 3, "seconds": 247.4, "peak_gb": 2.345,
    }  # fmt: skip
    return Report(**(values | changes))  # type: ignore[arg-type]


def test_mean_and_rpd_are_of_unrounded_scores() -> None:  # mutation: mean of rounded, source in the mean
    made = report()
    fog, night = (made.targets[name].miou for name in made.targets)
    assert made.mean == (fog + night) / 2
    assert made.source is not None and made.rpd == pytest.approx(100 * made.mean / made.source.miou, rel=1e-12)
    assert list(made.miou) == ["streets-game", "streets-fog", "streets-night"]
    assert made.per_class["streets-fog"]["bicycle"] is None


def test_rpd_of_the_authors_table() -> None:  # mutation: mean of ratios over all sets
    assert relative_performance(80.8, [58.0, 69.1, 58.6]) == pytest.approx(76.60891089)
    assert relative_performance(None, [1.0]) is relative_performance(5.0, []) is None


def test_the_table_is_aligned_and_says_its_protocol() -> None:
    lines = report().table().splitlines()
    assert lines[1].startswith("streets-game") and lines[1].endswith("source")
    column = lines[0].index("mIoU %") + len("mIoU %")
    assert all(re.fullmatch(r" *\d+\.\d\d", line[column - 8 : column]) for line in lines[1:6])
    assert lines[-1] == "recipe tqdm-mini-streets, protocol drawn, seed 3, time 4 min 07 s, memory 2.3 GB"
    assert "-" in report(source=None).table().splitlines()[-3]


def test_the_file_has_the_promised_keys(tmp_path: Path) -> None:
    made = report()
    made.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert {"source", "targets", "mean", "rpd", "source_name", "seconds", "peak_gb", "seed", "protocol"} <= set(read)
    assert read["targets"] == {name: found.miou for name, found in made.targets.items()}
    assert read["source"] == made.miou["streets-game"] and read["source_name"] == "streets-game"
    assert read["per_class"]["streets-fog"]["bicycle"] is None


def test_a_domain_without_labels_is_null_and_out_of_the_mean(tmp_path: Path) -> None:  # mutation: NaN in the JSON
    blank = DomainResult("streets-fog", "val", 1, Confusion(CITY), CITY)
    made = report(targets={"streets-fog": blank, "streets-night": result("streets-night", 0.2)})
    made.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["targets"]["streets-fog"] is None
    assert made.mean == made.miou["streets-night"]
    write_html(tmp_path / "report.html", made)


class Strict(HTMLParser):
    """Collects tags and text; every opened element must be closed in its order."""

    void = frozenset({"meta", "img", "input", "path", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [
            value or "" for key, value in attributes if key in ("src", "href", "srcset", "action", "data")
        ]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in self.void

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(tmp_path: Path, made: Report, history: list[dict[str, object]] | None = None) -> tuple[str, Strict]:
    write_html(tmp_path / "report.html", made, HISTORY if history is None else history)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Strict()
    parsed.feed(html)
    assert not parsed.open
    return html, parsed


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    html, parsed = page(tmp_path, report())
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html.replace("http://www.w3.org", ""))
    assert parsed.addresses and all(address.startswith("data:image/") for address in parsed.addresses)
    assert len(parsed.addresses) == 3 * 2 * 3, "image, truth, prediction; two panels; three domains"
    for text in ("streets-game", "streets-fog", "traffic light", "tqdm-mini-streets", "mask", "dice", "4 min 07 s"):
        assert text in parsed.text
    assert parsed.text.index("streets-game") < parsed.text.index("streets-fog")
    assert html.count("<polyline") == 2 * 3 and "prefers-color-scheme: dark" in html
    assert len(html) < 300_000


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:  # mutation: escape left out in one place
    evil = '<script>alert("x")</script>'
    space = LabelSpace("own", (evil, "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), (0, 1, 2), (False,) * 3)
    panel = Panel(evil, np.zeros((8, 8, 3), np.uint8), *[np.zeros((8, 8), np.uint8)] * 2, space)
    found = DomainResult(evil, "val", 1, Confusion(space), space, (panel,))
    made = Report({evil: found}, evil, found, evil, evil)
    html, parsed = page(tmp_path, made, [{"step": step, evil: 1.0} for step in range(3)])
    assert html.count("<script>") == 1 and "alert(" not in html.replace("alert(&quot;x", "")
    assert parsed.text.count(evil) >= 6


def test_large_pictures_do_not_make_a_large_page(tmp_path: Path) -> None:  # mutation: embedded at full size
    rng = np.random.default_rng(0)
    panel = Panel(
        "big", rng.integers(0, 256, (1024, 2048, 3), np.uint8), *[blocks(1024, 2048, 19, 0, side=2)] * 2, CITY
    )
    made = report(targets={"streets-fog": DomainResult("streets-fog", "val", 1, Confusion(CITY), CITY, (panel,))})
    assert len(page(tmp_path, made)[0]) < 800_000


@pytest.mark.parametrize("history", [[], [{"step": 1, "loss": 2.0}], [{"step": s, "loss": 0.0} for s in (1, 2)]])
def test_a_page_without_source_panels_or_history_is_whole(tmp_path: Path, history: list[dict[str, object]]) -> None:
    made = report(source=None, seed=None, seconds=None, targets={"camvid": result("camvid", 0.3, panels=0)})
    _, parsed = page(tmp_path, made, history)
    assert "camvid" in parsed.text


def test_odd_figures_in_the_history_are_left_out(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": float("nan") if step == 2 else 1.0, "note": "x", "ok": True} for step in range(4)]
    html, parsed = page(tmp_path, report(), rows)  # type: ignore[arg-type]
    assert "nan" not in html.lower().replace("image-rendering", "").split("<figure class=")[-1]
    assert "note" not in parsed.text.split("Training")[-1]


def test_sizes_are_told_and_other_ones_named_with_the_protocol(tmp_path: Path) -> None:  # mutation: the name alone
    usual = replace(result("streets-fog", 0.4), size=(128, 256), rule="drawn")
    other = replace(usual, name="streets-snow", size=(64, 128), rule="drawn-128x64")
    assert report(targets={"streets-fog": usual}).rule == "drawn"
    made = report(targets={"streets-fog": usual, "streets-snow": other})
    made.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["protocol"] == "drawn-128x64" and read["size"]["streets-snow"] == [64, 128]
    assert "protocol drawn-128x64" in made.table()

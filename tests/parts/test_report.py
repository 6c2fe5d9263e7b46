"""The report: its numbers, its table, its file, its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgss.evaluation.confusion import Confusion
from dgss.evaluation.evaluate import DomainResult
from dgss.evaluation.panels import Panel
from dgss.evaluation.report import Report, relative_performance, write_html
from dgss.labels import LabelSpace, label_space
from tests.parts.standin import blocks, paint

CITY, CAMVID = label_space("cityscapes19"), label_space("camvid11")
HISTORY = [
    {"step": step, "loss": 9.0 / step, "terms": {"mask": 5.0 / step, "dice": 4.0 / step}, "seconds": 1.5 * step}
    for step in range(1, 60)
]


HOW = "images of the val split at their own size, every second row and column counted"


def result(name: str, right: float, labels: LabelSpace = CITY, panels: int = 2, how: str = HOW) -> DomainResult:
    """A result of which every class but the last two has IoU `right`; the last two do not occur."""
    confusion, classes = Confusion(labels), len(labels) - 2
    for number in range(classes):
        confusion.matrix[number, number] = round(1000 * right)
        confusion.matrix[number, (number + 1) % classes] = 500 - round(500 * right)
    kept = tuple(
        Panel(f"{name} {seed}", paint(blocks(32, 64, 11, seed), labels.name), *[blocks(32, 64, 9, seed)] * 2, labels)
        for seed in range(panels)
    )
    return DomainResult(name, "val", 24, confusion, labels, kept, (128, 256), "drawn", how)


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


def test_the_table_is_aligned_and_says_how_it_was_scored() -> None:  # mutation: a column moved, a line left out
    camvid = replace(result("camvid", 0.3), size=None, images=3, how="one by one")
    made = report(targets={**report().targets, "camvid": camvid})
    assert (
        made.table()
        == """\
domain           images     size  mIoU %
streets-game         24  256x128   60.00  source
streets-fog          24  256x128   40.00
streets-night        24  256x128   20.00
camvid                3    mixed   30.00
mean of targets                    30.00
rPD                                50.00  % of the source

recipe tqdm-mini-streets, protocol drawn, seed 3, time 0:04:07, memory 2.3 GB
one by one (camvid); images of the val split at their own size, every second row and column counted \
(streets-game, streets-fog, streets-night)"""
    )


def test_the_table_leaves_out_what_there_is_not() -> None:
    def rows(made: Report) -> list[str]:
        return [line.split("  ")[0] for line in made.table().split("\n\n")[0].splitlines()[1:]]

    assert rows(report(source=None)) == ["streets-fog", "streets-night", "mean of targets"]
    assert rows(report(targets={})) == ["streets-game"]
    assert rows(Report({}, "drawn")) == []


def test_domains_scored_alike_are_told_together() -> None:  # mutation: the first rule for all
    five = {name: result(name, 0.5) for name in "abcde"}
    assert Report({}, "drawn").scoring == "" and Report(five, "drawn").scoring == HOW
    other = {"f": result("f", 0.5, how="as it is")}
    assert Report(five | other, "drawn").scoring == f"as it is (f); {HOW} (all others)"
    assert Report({"a": five["a"]} | other, "drawn").scoring == f"{HOW} (a); as it is (f)"


def test_the_file_has_the_promised_keys(tmp_path: Path) -> None:
    made = report()
    made.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert {"source", "targets", "mean", "rpd", "source_name", "seconds", "peak_gb", "seed", "protocol"} <= set(read)
    assert read["targets"] == {name: found.miou for name, found in made.targets.items()}
    assert read["source"] == made.miou["streets-game"] and read["source_name"] == "streets-game"
    assert read["per_class"]["streets-fog"]["bicycle"] is None
    assert read["size"]["streets-fog"] == [128, 256] and read["images"]["streets-fog"] == 24
    assert read["how"] == dict.fromkeys(made.miou, HOW)
    # of 17 classes with 400 pixels right and 300 wrong each
    assert read["pixel_accuracy"]["streets-fog"] == read["mean_accuracy"]["streets-fog"] == pytest.approx(400 / 7)


def test_a_domain_without_labels_is_null_and_out_of_the_mean(tmp_path: Path) -> None:  # mutation: NaN in the JSON
    blank = DomainResult("streets-fog", "val", 1, Confusion(CITY), CITY)
    made = report(targets={"streets-fog": blank, "streets-night": result("streets-night", 0.2)})
    made.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["targets"]["streets-fog"] is None
    assert made.mean == made.miou["streets-night"]
    write_html(tmp_path / "report.html", made)


def test_a_source_without_labels_leaves_rpd_undefined(tmp_path: Path) -> None:  # mutation: NaN in the JSON
    made = report(source=DomainResult("streets-game", "val", 1, Confusion(CITY), CITY))
    made.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["rpd"] is read["source"] is read["pixel_accuracy"]["streets-game"] is None
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
    for text in ("streets-game", "streets-fog", "traffic light", "tqdm-mini-streets", "mask", "dice", "0:04:07"):
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


LEADS = {
    "all": ({}, "Trained on streets-game, scored on 2 domains that it never saw in training.",
            ["Mean of targets 30.00% mIoU over 2 domains", "Source 60.00% mIoU streets-game, its val split",
             "rPD 50.00% of the source's mIoU is kept on the targets"]),
    "one": ({"targets": {"camvid": result("camvid", 0.3)}, "source": None},
            "Trained on streets-game, scored on camvid, which it never saw in training.",
            ["camvid 30.00% mIoU the only target"]),
    "source": ({"targets": {}}, "Trained on streets-game, scored on the val split of streets-game alone.",
               ["Source 60.00% mIoU streets-game, its val split"]),
    "model": ({"source": None, "source_name": None}, "Scored on 2 domains.",
              ["Mean of targets 30.00% mIoU over 2 domains"]),
    "model, one": ({"targets": {"camvid": result("camvid", 0.3)}, "source": None, "source_name": None},
                   "Scored on camvid.", ["camvid 30.00% mIoU the only target"]),
    "nothing": ({"targets": {}, "source": None, "source_name": None}, "Nothing was scored.", []),
}  # fmt: skip


@pytest.mark.parametrize("case", LEADS)
def test_the_head_says_what_was_trained_and_scored_and_shows_no_empty_figure(tmp_path: Path, case: str) -> None:
    changes, lead, figures = LEADS[case]
    html, _ = page(tmp_path, report(**changes), [])
    assert f'<p class="lead">{lead}</p>' in html
    head = html.split("</header>")[0]
    found = [re.findall(r">([^<]+)<", figure) for figure in head.split('<div class="figure')[1:]]
    assert [f"{name} {value}{unit} {unescape(note)}" for name, value, unit, note, *_ in found] == figures


def test_undefined_targets_are_not_counted_among_those_of_the_mean(tmp_path: Path) -> None:
    blank = DomainResult("camvid", "test", 1, Confusion(CITY), CITY)
    html, _ = page(tmp_path, report(targets={**report().targets, "camvid": blank}))
    assert "<dd>over 2 domains</dd>" in html


def rows(html: str) -> list[str]:
    return re.findall(r'<(?:div|details) class="row.*?</(?:div|details)>', html)


def test_a_row_tells_name_images_size_score_and_mean(tmp_path: Path) -> None:  # mutation: height x width, axis cut
    one = replace(result("camvid", 0.3, panels=1), images=1, size=None)
    html, _ = page(tmp_path, report(targets={**report().targets, "camvid": one}))
    found = []
    for row in rows(html):
        texts = re.findall(r">([^<>]+)<", row)
        bar, mark = re.findall(r'<i style="width:([\d.]+)%', row), re.findall(r'<u style="left:([\d.]+)%', row)
        found.append((*texts, *bar, *mark))
    assert found == [
        ("streets-game", " ", "source", "24 images of 256x128", "1 more", "60.0", "60.00"),
        ("streets-fog", "24 images of 256x128", "1 more", "40.0", "40.00", "30.00"),
        ("streets-night", "24 images of 256x128", "1 more", "20.0", "20.00", "30.00"),
        ("camvid", "1 image, sizes differ", "30.0", "30.00", "30.00"),
    ]
    assert "<u></u> mean of targets 30.0</span>" in html
    intro = f"<p>Mean intersection over union (mIoU) in percent. Protocol drawn: {HOW}.</p>"
    assert intro in html and html.index(intro) < html.index('class="row')


def test_one_target_has_no_mean(tmp_path: Path) -> None:
    html, _ = page(tmp_path, report(targets={"streets-fog": result("streets-fog", 0.4)}))
    assert "mean of targets 4" not in html and not any("<u" in row for row in rows(html))


def test_the_first_pictures_are_seen_and_the_others_open_without_script(tmp_path: Path) -> None:
    html, _ = page(tmp_path, report(targets={"streets-fog": result("streets-fog", 0.4, panels=3)}))
    row = rows(html)[1]
    assert row.startswith("<details")
    seen, opened = row.split("</summary>")
    names = [re.findall(r'alt="([^"]+)"', part) for part in (seen, opened)]
    parts = ("image", "truth", "prediction")
    assert names[0] == [f"streets-fog 0: {what}" for what in parts]
    assert names[1] == [f"streets-fog {number}: {what}" for number in (1, 2) for what in parts]


def bars(html: str, sheet: int) -> dict[str, tuple[str, ...]]:
    """Of each class: kind of track, width, mark, number, title."""
    text = html.split('<div class="sheet">')[sheet + 1].split("<section>")[0]
    bar = re.compile(
        r'<div class="bar" title="([^"]*)"><span class="name">([^<]+)</span><span class="(track[^"]*)">'
        r'(?:<i(?: style="width:([\d.]+)%[^>]*)?></i>)?(?:<u style="left:([\d.]+)%"></u>)?</span><b>([^<]+)</b>'
    )
    assert text.count('class="bar"') == len(bar.findall(text))
    return {name: (kind, width, mark, number, title) for title, name, kind, width, mark, number in bar.findall(text)}


def test_zero_undefined_and_small_scores_look_different(tmp_path: Path) -> None:  # mutation: one look for two of them
    space = LabelSpace("own", tuple("abcdef"), ((9, 9, 9),) * 6, tuple(range(6)), (False,) * 6)
    source, target = Confusion(space), Confusion(space)
    source.matrix[0, 0] = source.matrix[1, 1] = 1
    target.matrix[0, 0], target.matrix[0, 1] = 6, 4  # b is predicted, nowhere labelled
    target.matrix[2, 0] = 2  # c is labelled, nowhere predicted
    target.matrix[3, 3], target.matrix[3, 0] = 1, 2499
    made = Report(
        {"far": DomainResult("far", "val", 1, target, space)},
        "drawn",
        DomainResult("near", "val", 1, source, space),
        "near",
    )
    html, _ = page(tmp_path, made)
    assert bars(html, 1) == {
        "a": (
            "track",
            "0.24",
            "100.00",
            "0.2",
            "a: 60.0 % of its pixels are found, 0.2 % of what is predicted is right",
        ),
        "b": ("track zero", "", "100.00", "0.0", "b: labelled nowhere, 0.0 % of what is predicted is right"),
        "c": ("track zero", "", "", "0.0", "c: 0.0 % of its pixels are found, predicted nowhere"),
        "d": ("track", "0.04", "", "0.0", "d: 0.0 % of its pixels are found, 100.0 % of what is predicted is right"),
        "e": ("track void", "", "", "–", "e: labelled nowhere, predicted nowhere"),
        "f": ("track void", "", "", "–", "f: labelled nowhere, predicted nowhere"),
    }
    notes = [re.sub(r"<[^>]+>", "", note).strip() for note in re.findall(r"<li>(.*?)</li>", html.split("<h3>far")[1])]
    assert notes == [
        "near, the source",
        "0: never right",
        "–: neither labelled nor predicted",
        "pixel accuracy 0.3 %",
        "mean class accuracy 20.0 %",
    ]


def test_the_mark_of_the_source_stands_where_there_is_something_to_compare(tmp_path: Path) -> None:
    made = report(targets={"streets-fog": result("streets-fog", 0.4), "camvid": result("camvid", 0.3, CAMVID)})
    html, _ = page(tmp_path, made)
    marks = [{mark for _, _, mark, _, _ in bars(html, sheet).values()} for sheet in range(3)]
    assert marks == [{""}, {"60.00", ""}, {""}]
    legends = [sheet.split("</ul>")[0] for sheet in html.split("<section>")[2].split('<ul class="legend">')[1:]]
    assert ["streets-game, the source" in legend for legend in legends] == [False, True, False]
    assert all("neither labelled" in legend and "never right" not in legend for legend in legends)


def test_nine_domains_of_three_large_pictures_stay_under_two_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)  # as busy as a photograph: soft shapes under noise
    soft = Image.fromarray(rng.integers(0, 256, (32, 64, 3), np.uint8)).resize((2048, 1024))
    photo = np.clip(np.asarray(soft) + rng.normal(0, 9, (1024, 2048, 1)), 0, 255).astype(np.uint8)
    panel = Panel("big", photo, *[blocks(1024, 2048, 19, 0, side=48)] * 2, CITY)
    made = report(targets={"streets-fog": DomainResult("streets-fog", "val", 1, Confusion(CITY), CITY, (panel,))})
    none = report(targets={"streets-fog": DomainResult("streets-fog", "val", 1, Confusion(CITY), CITY)})
    assert 27 * (len(page(tmp_path, made)[0]) - len(page(tmp_path, none)[0])) < 1_800_000  # mutation: larger ones


@pytest.mark.parametrize("history", [[], [{"step": 1, "loss": 2.0}], [{"step": s, "loss": 0.0} for s in (1, 2)]])
def test_a_page_without_source_panels_or_history_is_whole(tmp_path: Path, history: list[dict[str, object]]) -> None:
    made = report(source=None, seed=None, seconds=None, targets={"camvid": result("camvid", 0.3, panels=0)})
    html, parsed = page(tmp_path, made, history)
    assert "camvid" in parsed.text and "<img src" not in html and "<span>truth</span>" not in html
    assert ("<h2>Training</h2>" in html) == (len(history) > 1)


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

"""The page of a run: one HTML file, everything inside it, readable in light and in dark."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from io import BytesIO
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from dgss.evaluation.curves import training_curves
from dgss.evaluation.evaluate import DomainResult
from dgss.evaluation.panels import Panel
from dgss.interfaces import Picture
from dgss.labels import LabelMap, LabelSpace

_WIDEST = 512  # embedded pictures are shrunk to this, which keeps the file small


@dataclass(frozen=True)
class Figure:
    """A headline number with its name, unit and what it is about. tone: `source` or `target`, coloured as its bars."""

    name: str
    value: str
    unit: str
    note: str
    tone: str = ""


@dataclass(frozen=True)
class Page:
    """What the page tells.

    scoring: how the numbers were made, in words. results: all domains, the source first. source: the one of them that
    was trained on. mean: of several targets in percent, None where there is nothing to average.
    """

    title: str
    lead: str
    figures: tuple[Figure, ...]
    facts: Mapping[str, str]
    scoring: str
    results: tuple[DomainResult, ...]
    source: DomainResult | None
    mean: float | None
    history: tuple[Mapping[str, Any], ...]


def render(page: Page) -> str:
    """The page as HTML. Every text from outside is escaped; nothing is requested from anywhere."""
    template = resources.files("dgss").joinpath("evaluation", "page.html").read_text(encoding="utf-8")
    scoring = f" Protocol {page.facts['protocol']}: {page.scoring}." if page.scoring else ""
    sections = (
        ("Domains", f"Mean intersection over union (mIoU) in percent.{scoring}", _domains(page)),
        ("Classes", "Intersection over union in percent.", _classes(page.results, page.source)),
        ("Training", "Faint as logged, strong smoothed.", training_curves(page.history)),
    )
    return Template(template).substitute(
        title=escape(page.title),
        lead=escape(page.lead),
        figures="".join(_figure(figure) for figure in page.figures),
        facts="".join(f"<li><span>{escape(key)}</span> {escape(value)}</li>" for key, value in page.facts.items()),
        sections="".join(
            f'<section><h2>{title}</h2><p>{escape(intro)}</p><div class="card">{body}</div></section>'
            for title, intro, body in sections
            if body
        ),
    )


def _figure(figure: Figure) -> str:
    return (
        f'<div class="figure {figure.tone}"><dt>{escape(figure.name)}</dt>'
        f"<dd>{escape(figure.value)}<small>{escape(figure.unit)}</small></dd><dd>{escape(figure.note)}</dd></div>"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"


def _track(value: float | None, mark: float | None = None, colour: str = "var(--bar)") -> str:
    """A bar from 0 to 100 and its number. Undefined: no bar; 0: a tick. mark: an upright line at another value."""
    kind, bar = " void", ""
    if value is not None and not math.isnan(value):
        kind, bar = ("", f'<i style="width:{value:.2f}%;background:{colour}"></i>') if value else (" zero", "<i></i>")
    line = "" if mark is None or math.isnan(mark) else f'<u style="left:{mark:.2f}%"></u>'
    return f'<span class="track{kind}">{bar}{line}</span><b>{_percent(value)}</b>'


def _domains(page: Page) -> str:
    """A row a domain, the source first: mIoU and pictures; further pictures where the row is opened."""
    if not page.results:
        return ""
    mark = f"<u></u> mean of targets {_percent(page.mean)}" if page.mean is not None else ""
    heads = "".join(f"<span>{what}</span>" for what in ("image", "truth", "prediction"))
    pictures = any(result.panels for result in page.results)
    head = f'<span class="triple">{heads}</span>' if pictures else ""
    rows = "".join(_domain(result, page) for result in page.results)
    legend = _legends(page.results) if pictures else ""
    return f'<div class="line head"><span></span><span>{mark}</span><b></b>{head}</div>{rows}{legend}'


def _domain(result: DomainResult, page: Page) -> str:
    source = result is page.source
    images = f"{result.images} image{'' if result.images == 1 else 's'}"
    size = f" of {result.size[1]}x{result.size[0]}" if result.size else ", sizes differ"
    triples = [_triple(panel) for panel in result.panels]
    more = f'<small class="more">{len(triples) - 1} more</small>' if len(triples) > 1 else ""
    role = " <em>source</em>" if source else ""
    line = (
        f'<span class="line"><span class="name"><b>{escape(result.name)}</b>{role}<small>{images}{size}</small>{more}'
        f"</span>{_track(result.miou, None if source else page.mean)}{''.join(triples[:1])}</span>"
    )
    kind = f'class="row {"source" if source else "target"}"'
    if not more:
        return f"<div {kind}>{line}</div>"
    return f"<details {kind}><summary>{line}</summary>{''.join(triples[1:])}</details>"


def _classes(results: Sequence[DomainResult], source: DomainResult | None) -> str:
    """A tab a domain: IoU by class in class colours, a mark where the source stands."""
    inputs, tabs, sheets = [], [], []
    for number, result in enumerate(results):
        checked = " checked" if number == 0 else ""
        inputs.append(f'<input type="radio" name="domain" id="tab{number}"{checked}>')
        tabs.append(f'<label for="tab{number}">{escape(result.name)}</label>')
        compared = source if source and result is not source and source.labels == result.labels else None
        sheets.append(f'<div class="sheet">{_sheet(result, compared)}</div>')
    rules = "".join(
        f"#tab{n}:checked~.tabs label:nth-child({n + 1}){{background:var(--ink);color:var(--paper)}}"
        f"#tab{n}:focus-visible~.tabs label:nth-child({n + 1}){{outline:2px solid var(--accent);outline-offset:2px}}"
        f"#tab{n}:checked~.sheets .sheet:nth-child({n + 1}){{display:block}}"
        for n in range(len(results))
    )
    shown = f'<div class="tabs">{"".join(tabs)}</div><div class="sheets">{"".join(sheets)}</div>'
    switch = f'<div class="switch" role="radiogroup" aria-label="domain">{"".join(inputs)}{shown}</div>'
    return f"<style>{rules}</style>{switch}" if results else ""


def _sheet(result: DomainResult, compared: DomainResult | None) -> str:
    """The bars of one domain, and below them what their marks mean."""
    marks = compared.per_class if compared else {}
    bars = "".join(
        f'<div class="bar" title="{escape(why)}"><span class="name">{escape(name)}</span>'
        f"{_track(share, marks.get(name), _hex(colour))}</div>"
        for (name, share), colour, why in zip(
            result.per_class.items(), result.labels.colours, _reasons(result), strict=True
        )
    )
    shares, counts = result.per_class.values(), result.confusion
    notes = [
        f"<li><u></u> {escape(compared.name)}, the source</li>" if compared else "",
        '<li><span class="track zero"><i></i></span> 0: never right</li>' if 0 in shares else "",
        '<li><span class="track void"></span> –: neither labelled nor predicted</li>' if None in shares else "",
        f"<li>pixel accuracy {_percent(100 * counts.pixel_accuracy())} %</li>",
        f"<li>mean class accuracy {_percent(100 * counts.mean_recall())} %</li>",
    ]
    rows = -(-len(result.labels) // 2)
    return (
        f'<h3>{escape(result.name)}</h3><div class="bars" style="--rows:{rows}">{bars}</div>'
        f'<ul class="legend">{"".join(notes)}</ul>'
    )


def _reasons(result: DomainResult) -> Iterator[str]:
    """What stands behind each class's IoU: how much of it is found, how much of what is called so is right."""
    for name, found, right in zip(
        result.labels.names, result.confusion.recall(), result.confusion.precision(), strict=True
    ):
        labelled = f"{100 * found:.1f} % of its pixels are found" if not np.isnan(found) else "labelled nowhere"
        predicted = f"{100 * right:.1f} % of what is predicted is right" if not np.isnan(right) else "predicted nowhere"
        yield f"{name}: {labelled}, {predicted}"


def _triple(panel: Panel) -> str:
    """image | truth | prediction, each a picture inside the page."""
    parts = {
        "image": _embed(panel.image),
        "truth": _embed_labels(panel.truth, panel.labels),
        "prediction": _embed_labels(panel.prediction, panel.labels),
    }
    pictures = (f'<img src="{uri}" alt="{escape(f"{panel.name}: {what}")}">' for what, uri in parts.items())
    return f'<span class="triple">{"".join(pictures)}</span>'


def _legends(results: Sequence[DomainResult]) -> str:
    """The class colours of every label space that occurs, named where there are several."""
    spaces = {result.labels.name: result.labels for result in results if result.panels}
    legends = []
    for space in spaces.values():
        head = f"<li><b>{escape(space.name)}</b></li>" if len(spaces) > 1 else ""
        items = (
            f'<li><i style="background:{_hex(colour)}"></i>{escape(name)}</li>'
            for name, colour in zip((*space.names, "not labelled"), (*space.colours, (0, 0, 0)), strict=True)
        )
        legends.append(f'<ul class="legend">{head}{"".join(items)}</ul>')
    return "".join(legends)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _embed(image: Picture) -> str:
    """A photo as a JPEG data URI."""
    picture, buffer = Image.fromarray(image), BytesIO()
    picture.thumbnail((_WIDEST, _WIDEST))
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()


def _embed_labels(labels: LabelMap, space: LabelSpace) -> str:
    """A label map as a small palette PNG data URI in class colours."""
    step = -(-max(labels.shape) // _WIDEST)
    picture, buffer = Image.fromarray(np.ascontiguousarray(labels[::step, ::step])), BytesIO()
    picture.putpalette(space.colour(np.arange(256, dtype=np.uint8)[None]).tobytes())
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()

"""The page of a run: one HTML file, everything inside it, readable in light and in dark."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
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
from dgss.evaluation.panels import Panel, Picture
from dgss.labels import LabelMap, LabelSpace

_WIDEST = 640  # embedded pictures are shrunk to this, which keeps the file small


@dataclass(frozen=True)
class Figure:
    """A headline number with its name and unit."""

    name: str
    value: str
    unit: str


@dataclass(frozen=True)
class Page:
    """What the page tells. results: all domains, the source first; source: the one of them that was trained on."""

    title: str
    lead: str
    figures: tuple[Figure, ...]
    facts: Mapping[str, str]
    results: tuple[DomainResult, ...]
    source: DomainResult | None
    mean: float | None
    history: tuple[Mapping[str, Any], ...]


def render(page: Page) -> str:
    """The page as HTML. Every text from outside is escaped; nothing is requested from anywhere."""
    template = resources.files("dgss").joinpath("evaluation", "page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=escape(page.title),
        lead=escape(page.lead),
        figures="".join(_figure(figure) for figure in page.figures),
        facts="".join(f"<li><span>{escape(key)}</span> {escape(value)}</li>" for key, value in page.facts.items()),
        domains=_domain_bars(page),
        classes=_class_bars(page.results, page.source),
        curves=training_curves(page.history),
        gallery="".join(_gallery(result, result is page.source) for result in page.results if result.panels),
        legends=_legends(page.results),
    )


def _figure(figure: Figure) -> str:
    return (
        f'<div class="figure"><dt>{escape(figure.name)}</dt>'
        f"<dd>{escape(figure.value)}<small>{escape(figure.unit)}</small></dd></div>"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"


def _width(value: float | None) -> str:
    return "0" if value is None or math.isnan(value) else f"{value:.2f}"


def _domain_bars(page: Page) -> str:
    """mIoU by domain, the source first, with a line at the mean of the targets."""
    top = max([10.0, *(result.miou for result in page.results if not math.isnan(result.miou))])
    scale = 100 / (10 * math.ceil(top / 10))  # the axis ends at the next full ten
    bars = [
        f'<div class="bar{" source" if result is page.source else ""}"><span class="name">{escape(result.name)}</span>'
        f'<span class="track"><i style="width:{_width(result.miou * scale)}%"></i></span>'
        f"<b>{_percent(result.miou)}</b></div>"
        for result in page.results
    ]
    first = bars.pop(0) if page.source is not None else ""
    if page.mean is None:
        return first + "".join(bars)
    left = f"{_width(page.mean * scale)}%"
    line = (
        f'<span class="mean" style="left:{left}"></span>'
        f'<span class="note" style="left:clamp(64px,{left},100% - 64px)">mean of targets {_percent(page.mean)}</span>'
    )
    over = f'<div class="over"><span></span><span class="track">{line}</span><b></b></div>'
    return f'{first}<div class="targets">{"".join(bars)}{over}</div>'


def _class_bars(results: Sequence[DomainResult], source: DomainResult | None) -> str:
    """A tab a domain: IoU by class in class colours, a mark where the source stands."""
    inputs, tabs, sheets = [], [], []
    for number, result in enumerate(results):
        checked = " checked" if number == 0 else ""
        inputs.append(f'<input type="radio" name="domain" id="tab{number}"{checked}>')
        tabs.append(f'<label for="tab{number}">{escape(result.name)}</label>')
        compared = source.per_class if source and result is not source and source.labels == result.labels else {}
        half = -(-len(result.labels) // 2)
        sheets.append(f'<div class="sheet" style="--rows:{half}">{_sheet(result, compared)}</div>')
    rules = "".join(
        f"#tab{n}:checked~.tabs label:nth-child({n + 1}){{background:var(--ink);color:var(--paper)}}"
        f"#tab{n}:focus-visible~.tabs label:nth-child({n + 1}){{outline:2px solid var(--accent);outline-offset:2px}}"
        f"#tab{n}:checked~.sheets .sheet:nth-child({n + 1}){{display:grid}}"
        for n in range(len(results))
    )
    shown = f'<div class="tabs">{"".join(tabs)}</div><div class="sheets">{"".join(sheets)}</div>'
    return f'<style>{rules}</style><div class="switch">{"".join(inputs)}{shown}</div>'


def _sheet(result: DomainResult, compared: Mapping[str, float | None]) -> str:
    rows = []
    for (name, share), colour in zip(result.per_class.items(), result.labels.colours, strict=True):
        mark = f'<u style="left:{_width(compared[name])}%"></u>' if compared.get(name) is not None else ""
        rows.append(
            f'<div class="bar"><span class="name">{escape(name)}</span><span class="track">'
            f'<i style="width:{_width(share)}%;background:{_hex(colour)}"></i>{mark}</span>'
            f"<b>{_percent(share)}</b></div>"
        )
    return "".join(rows)


def _gallery(result: DomainResult, source: bool) -> str:
    rows = [_triple(panel) for panel in result.panels]
    rest = f"<details><summary>{len(rows) - 1} more</summary>{''.join(rows[1:])}</details>" if len(rows) > 1 else ""
    mark = " <em>source</em>" if source else ""
    return (
        f"<article><header><h3>{escape(result.name)}{mark}</h3><p>{_percent(result.miou)} % mIoU</p></header>"
        f"{rows[0]}{rest}</article>"
    )


def _triple(panel: Panel) -> str:
    """image | truth | prediction, each a picture inside the page."""
    parts = {
        "image": _embed(panel.image),
        "truth": _embed_labels(panel.truth, panel.labels),
        "prediction": _embed_labels(panel.prediction, panel.labels),
    }
    return (
        '<div class="triple">'
        + "".join(
            f'<figure><img src="{uri}" alt="{escape(f"{panel.name}: {what}")}"><figcaption>{what}</figcaption></figure>'
            for what, uri in parts.items()
        )
        + "</div>"
    )


def _legends(results: Sequence[DomainResult]) -> str:
    """The class colours of every label space that occurs, named where there are several."""
    spaces = {result.labels.name: result.labels for result in results}
    legends = []
    for space in spaces.values():
        head = f"<li><b>{escape(space.name)}</b></li>" if len(spaces) > 1 else ""
        items = (
            f'<li><i style="background:{_hex(colour)}"></i>{escape(name)}</li>'
            for name, colour in zip(space.names, space.colours, strict=True)
        )
        legends.append(f'<ul class="legend">{head}{"".join(items)}</ul>')
    return "".join(legends)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _embed(image: Picture) -> str:
    """A photo as a JPEG data URI."""
    picture, buffer = Image.fromarray(image), BytesIO()
    picture.thumbnail((_WIDEST, _WIDEST))
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()


def _embed_labels(labels: LabelMap, space: LabelSpace) -> str:
    """A label map as a small palette PNG data URI in class colours."""
    step = -(-max(labels.shape) // _WIDEST)
    picture, buffer = Image.fromarray(np.ascontiguousarray(labels[::step, ::step])), BytesIO()
    picture.putpalette(space.colour(np.arange(256, dtype=np.uint8)[None]).tobytes())
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()

"""The result of a run: numbers as a table, as JSON, and as one page to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from dgss.evaluation.evaluate import DomainResult
from dgss.evaluation.page import Figure, Page, render
from dgss.files import write_text


def relative_performance(source: float | None, targets: Sequence[float]) -> float | None:
    """rPD in percent: 100 x mean of the targets' mIoU / mIoU on the source's validation set (VLTSeg, Sec. 4).

    None where either side is missing or the source scores 0.
    """
    return 100 * sum(targets) / len(targets) / source if source and targets else None


@dataclass(frozen=True)
class Report:
    """Scores of one model. All in percent.

    targets: results by domain. protocol: its name. source: the result on the training domain, None where it was not
    scored. source_name: the training domain. name: the recipe. seconds: wall time of the run. peak_gb: main memory of
    its main process.
    """

    targets: Mapping[str, DomainResult]
    protocol: str
    source: DomainResult | None = None
    source_name: str | None = None
    name: str = ""
    seed: int | None = None
    seconds: float | None = None
    peak_gb: float | None = None

    @property
    def results(self) -> list[DomainResult]:
        """All results, the source first."""
        return [*([self.source] if self.source else []), *self.targets.values()]

    @property
    def rule(self) -> str:
        """The protocol as the numbers must be quoted: with each size that is not the protocol's own."""
        others = {result.rule for result in self.results if result.rule} - {self.protocol}
        return " + ".join(sorted(others)) or self.protocol

    @property
    def miou(self) -> dict[str, float]:
        """mIoU by domain, the source first; NaN where a domain has no labelled pixel."""
        return {result.name: result.miou for result in self.results}

    @property
    def per_class(self) -> dict[str, dict[str, float | None]]:
        """IoU by domain and class; None where a class does not occur."""
        return {result.name: result.per_class for result in self.results}

    @property
    def mean(self) -> float | None:
        """Mean of the targets' mIoU, from unrounded values."""
        scores = self.target_scores
        return sum(scores) / len(scores) if scores else None

    @property
    def rpd(self) -> float | None:
        """Relative performance under domain shift; see `relative_performance`."""
        return relative_performance(_defined(self.source.miou) if self.source else None, self.target_scores)

    @property
    def scoring(self) -> str:
        """How the numbers were made, in words: domains that were scored alike are told together."""
        alike: dict[str, list[str]] = {}
        for result in self.results:
            alike.setdefault(result.how, []).append(result.name)
        if len(alike) < 2:
            return "".join(alike)
        *few, (most, names) = sorted(alike.items(), key=lambda group: len(group[1]))
        rest = ", ".join(names) if len(names) < 4 else "all others"
        return "; ".join([*(f"{how} ({', '.join(names)})" for how, names in few), f"{most} ({rest})"])

    def table(self) -> str:
        """The scores as aligned plain text."""
        rows = [("domain", "images", "size", "mIoU %", "")]
        for result in self.results:
            mark = "source" if result is self.source else ""
            rows.append((result.name, str(result.images), _size(result), _number(result.miou), mark))
        if self.targets:
            rows.append(("mean of targets", "", "", _number(self.mean), ""))
        if self.targets and self.source:
            rows.append(("rPD", "", "", _number(self.rpd), "% of the source"))
        name, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = ["  ".join([row[0].ljust(name), *map(str.rjust, row[1:4], widths), row[4]]).rstrip() for row in rows]
        facts = [f"{key} {value}" for key, value in {"recipe": self.name, **self.facts()}.items() if value]
        return "\n".join([*lines, "", ", ".join(facts), *([self.scoring] if self.scoring else [])])

    def facts(self) -> dict[str, str]:
        """What a reader must know beside the numbers, as far as it is known."""
        facts = {"protocol": self.rule}
        if self.seed is not None:
            facts["seed"] = str(self.seed)
        if self.seconds is not None:
            facts["time"] = str(timedelta(seconds=round(self.seconds)))
        if self.peak_gb is not None:
            facts["memory"] = f"{self.peak_gb:.1f} GB"
        return facts

    def to_json(self) -> dict[str, Any]:
        """What `report.json` holds; an undefined number is null."""
        return {
            "name": self.name,
            "protocol": self.rule,
            "seed": self.seed,
            "source_name": self.source_name,
            "source": _defined(self.source.miou) if self.source else None,
            "targets": {name: _defined(result.miou) for name, result in self.targets.items()},
            "mean": self.mean,
            "rpd": self.rpd,
            "seconds": self.seconds,
            "peak_gb": self.peak_gb,
            "size": {result.name: list(result.size) if result.size else None for result in self.results},
            "images": {result.name: result.images for result in self.results},
            "how": {result.name: result.how for result in self.results},
            "pixel_accuracy": {
                result.name: _defined(100 * result.confusion.pixel_accuracy()) for result in self.results
            },
            "mean_accuracy": {result.name: _defined(100 * result.confusion.mean_recall()) for result in self.results},
            "per_class": self.per_class,
        }

    def save(self, path: str | Path) -> None:
        """Writes the numbers as JSON."""
        write_text(Path(path), json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    @property
    def target_scores(self) -> list[float]:
        """mIoU of the targets that have a labelled pixel."""
        return [result.miou for result in self.targets.values() if not math.isnan(result.miou)]


def write_html(path: str | Path, report: Report, history: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes the page: one file without outside requests; its pictures are the results' panels.

    history: rows of metrics.jsonl, each with `step`, `loss` and the single terms.
    """
    page = Page(
        title=report.name or "evaluation",
        lead=_lead(report),
        figures=tuple(_figures(report)),
        facts=report.facts(),
        scoring=report.scoring,
        results=tuple(report.results),
        source=report.source,
        mean=report.mean if len(report.targets) > 1 else None,
        history=tuple(history),
    )
    write_text(Path(path), render(page))


def _lead(report: Report) -> str:
    """One sentence: trained on what, scored on what."""
    names = list(report.targets)
    trained = f"Trained on {report.source_name}, scored" if report.source_name else "Scored"
    if not names:
        source = report.source
        return f"{trained} on the {source.split} split of {source.name} alone." if source else "Nothing was scored."
    if not report.source_name:
        return f"Scored on {names[0] if len(names) == 1 else f'{len(names)} domains'}."
    unseen = f"{names[0]}, which" if len(names) == 1 else f"{len(names)} domains that"
    return f"{trained} on {unseen} it never saw in training."


def _figures(report: Report) -> Iterator[Figure]:
    """The numbers at the top, those that there are."""
    names, source = list(report.targets), report.source
    if names:
        several = len(names) > 1
        note = f"over {len(report.target_scores)} domains" if several else "the only target"
        yield Figure("Mean of targets" if several else names[0], _number(report.mean), "% mIoU", note, "target")
    if source:
        yield Figure("Source", _number(source.miou), "% mIoU", f"{source.name}, its {source.split} split", "source")
    if names and source:
        yield Figure("rPD", _number(report.rpd), "%", "of the source's mIoU is kept on the targets")


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def _size(result: DomainResult) -> str:
    return f"{result.size[1]}x{result.size[0]}" if result.size else "mixed"

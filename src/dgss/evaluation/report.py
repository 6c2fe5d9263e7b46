"""The result of a run: numbers as a table, as JSON, and as one page to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    scored. source_name: the training domain. name: the recipe. seconds: wall time of the run. peak_gb: its memory.
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
        scores = self._target_scores()
        return sum(scores) / len(scores) if scores else None

    @property
    def rpd(self) -> float | None:
        """Relative performance under domain shift; see `relative_performance`."""
        return relative_performance(self.source.miou if self.source else None, self._target_scores())

    def table(self) -> str:
        """The scores as aligned plain text."""
        width = max(len(name) for name in [*self.miou, "mean of targets"])
        lines = [f"{'domain':<{width}}  images   mIoU %"]
        for result in self.results:
            mark = "  source" if result is self.source else ""
            lines.append(f"{result.name:<{width}}  {result.images:>6}  {_number(result.miou):>7}{mark}")
        lines.append(f"{'mean of targets':<{width}}  {'':>6}  {_number(self.mean):>7}")
        lines.append(f"{'rPD':<{width}}  {'':>6}  {_number(self.rpd):>7}")
        facts = [f"{key} {value}" for key, value in {"recipe": self.name, **self.facts()}.items() if value]
        return "\n".join([*lines, "", ", ".join(facts)])

    def facts(self) -> dict[str, str]:
        """What a reader must know beside the numbers, as far as it is known."""
        facts = {"protocol": self.rule}
        if self.seed is not None:
            facts["seed"] = str(self.seed)
        if self.seconds is not None:
            facts["time"] = _duration(self.seconds)
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
            "per_class": self.per_class,
        }

    def save(self, path: str | Path) -> None:
        """Writes the numbers as JSON."""
        write_text(Path(path), json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def _target_scores(self) -> list[float]:
        return [result.miou for result in self.targets.values() if not math.isnan(result.miou)]


def write_html(path: str | Path, report: Report, history: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes the page: one file without outside requests; its pictures are the results' panels.

    history: rows of metrics.jsonl, each with `step`, `loss` and the single terms.
    """
    count = len(report.targets)
    trained = f"Trained on {report.source_name}, scored" if report.source_name else "Scored"
    page = Page(
        title=report.name or "evaluation",
        lead=f"{trained} on {count} domain{'' if count == 1 else 's'} it was never shown.",
        figures=(
            Figure("Mean of targets", _number(report.mean), "% mIoU"),
            Figure("Source", _number(report.source.miou if report.source else None), "% mIoU"),
            Figure("rPD", _number(report.rpd), "% of source"),
        ),
        facts=report.facts(),
        results=tuple(report.results),
        source=report.source,
        mean=report.mean,
        history=tuple(history),
    )
    write_text(Path(path), render(page))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"

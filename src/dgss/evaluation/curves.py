"""Training curves as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_NO_CURVE = {"step", "seconds", "time", "eta", "peak_gb", "memory", "images_per_second", "epoch"}
_LEFT, _TOP, _BOTTOM = 44.0, 8.0, 24.0
_POINTS = 240  # more cannot be told apart at this width


@dataclass(frozen=True)
class _Frame:
    """Where steps first..last and values low..high lie in a picture of width x height."""

    width: float
    height: float
    first: float
    last: float
    low: float
    high: float

    def x(self, step: float) -> float:
        return _LEFT + (step - self.first) / ((self.last - self.first) or 1.0) * (self.width - _LEFT)

    def y(self, value: float) -> float:
        return _TOP + (self.high - value) / ((self.high - self.low) or 1.0) * (self.height - _BOTTOM - _TOP)

    def line(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in points)


def training_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """The total loss large, every other figure small, over steps; nothing where there is no history."""
    rows = [_flat(row) for row in history]
    names = dict.fromkeys(name for row in rows for name in row if name not in _NO_CURVE)
    series = {name: [(row["step"], row[name]) for row in rows if name in row and "step" in row] for name in names}
    series = {name: points for name, points in series.items() if len(points) > 1}
    if not series:
        return ""
    order = sorted(series, key=lambda name: name != "loss")
    charts = (_chart(name, series[name], wide=name == "loss") for name in order)
    return f'<div class="charts">{"".join(charts)}</div>'


def _flat(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row, nested ones (the loss terms) under their own names."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[str(key)] = float(value)
    return found


def _chart(name: str, points: Sequence[tuple[float, float]], wide: bool) -> str:
    """One curve: faint as logged, strong smoothed over a twentieth of the steps."""
    values = [value for _, value in points]
    ticks = _ticks(min(0.0, *values), max(values))
    frame = _Frame(
        *((1060.0, 230.0) if wide else (330.0, 150.0)), points[0][0], points[-1][0], ticks[0], max(ticks[-1], *values)
    )
    grid = "".join(
        f'<path class="grid" d="M{_LEFT:g} {frame.y(tick):.1f}H{frame.width:g}"/>'
        f'<text x="{_LEFT - 8:g}" y="{frame.y(tick) + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
        for tick in ticks
    )
    foot = (
        f'<text x="{_LEFT:g}" y="{frame.height - 3:g}">step {frame.first:g}</text>'
        f'<text x="{frame.width:g}" y="{frame.height - 3:g}" text-anchor="end">{frame.last:g}</text>'
    )
    lines = (
        f'<polyline class="raw" points="{frame.line(_thinned(points))}"/>'
        f'<polyline class="smooth" points="{frame.line(_thinned(_smoothed(points)))}"/>'
    )
    return (
        f'<figure class="chart{" wide" if wide else ""}"><figcaption>{escape(name)}<b>{values[-1]:.4g}</b></figcaption>'
        f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" aria-label="{escape(name)} over steps">'
        f"{grid}{foot}{lines}</svg></figure>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers from low to just above high."""
    rough = ((high - low) or abs(high) or 1.0) / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    return [round(number * step, 12) for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _short(tick: float) -> str:
    """A tick's number in at most six letters."""
    if tick == 0 or abs(tick) >= 0.01:
        return f"{tick:g}"
    digits, power = f"{tick:.2e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean over a window of a twentieth of the points, shorter at both ends."""
    reach = max(len(points) // 40, 1)
    smooth = []
    for index, (step, _) in enumerate(points):
        near = [value for _, value in points[max(index - reach, 0) : index + reach + 1]]
        smooth.append((step, sum(near) / len(near)))
    return smooth


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(points) // _POINTS)
    return [*points[:-1:stride], points[-1]]

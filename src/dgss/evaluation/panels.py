"""Pictures of what a model does: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dgss.files import atomic_path
from dgss.interfaces import Picture
from dgss.labels import LabelMap, LabelSpace

_GAP = 6


@dataclass(frozen=True)
class Panel:
    """One image (H, W, 3) uint8, RGB, its truth (H, W) uint8 and its prediction (H, W) uint8, in one label space."""

    name: str
    image: Picture = field(repr=False)
    truth: LabelMap = field(repr=False)
    prediction: LabelMap = field(repr=False)
    labels: LabelSpace

    def compose(self) -> Picture:
        """image | truth | prediction as one picture (H, 3 W + 2 gaps, 3)."""
        gap = np.full((self.image.shape[0], _GAP, 3), 255, np.uint8)
        truth, prediction = self.labels.colour(self.truth), self.labels.colour(self.prediction)
        return np.hstack([self.image, gap, truth, gap, prediction])


def compose_panels(panels: Sequence[Panel]) -> Picture:
    """All panels below each other, (height, width, 3) uint8; narrower ones are centred."""
    rows = [panel.compose() for panel in panels]
    width = max(row.shape[1] for row in rows)
    sheet = np.full((sum(row.shape[0] + _GAP for row in rows) - _GAP, width, 3), 255, np.uint8)
    top = 0
    for row in rows:
        left = (width - row.shape[1]) // 2
        sheet[top : top + row.shape[0], left : left + row.shape[1]] = row
        top += row.shape[0] + _GAP
    return sheet


def save_panels(path: Path, panels: Sequence[Panel]) -> None:
    """Writes `compose_panels` as a PNG, atomically."""
    sheet = Image.fromarray(compose_panels(panels))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)

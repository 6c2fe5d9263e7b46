"""A contact sheet: looks in rows, seeds in columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dgss.streets.draw import draw_street


def contact_sheet(looks: Sequence[str], seeds: Sequence[int], size: tuple[int, int] = (128, 256)) -> NDArray[np.uint8]:
    """One row per look, one column per seed: (rows * H, columns * W, 3) uint8 RGB."""
    return np.vstack([np.hstack([draw_street(seed, look, size).image for seed in seeds]) for look in looks])

"""Where a surface is open: between the bars of a fence, between the twigs of a crown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgss.streets.kinds import Material
from dgss.streets.noise import FBM, Floats, Indices, cell_hash, noise

_BAR = 0.4  # part of the period that is solid
_PLANK = 0.86
_WIRE = 0.22  # part of the period that is wire, each way
_RAIL = 0.1  # metres
_LOW_RAIL = (0.25, 0.35)  # metres above ground
_POST_STEP, _POST = 2.4, 0.08  # metres
_MESHED = 1.5  # kinds above are mesh, above _PLANKED planks
_PLANKED = 0.5
_OPEN_SHARE = (0.55, 0.14, 0.5)  # of the pixels, by kind, where single bars are too fine to see
_TWIG_SCALE = 5.0  # metres of a tile of noise; twigs run where the noise is near 0


@dataclass(frozen=True)
class OpenPixels:
    """Pixels of surfaces with gaps, n of them: place on the surface in metres, depth, and what the table says.

    u, v, depth: (n,); slope: (n,) growth of 1/depth per pixel to the right; q: (4, n), as `Material` explains.
    """

    u: Floats
    v: Floats
    depth: Floats
    slope: Floats
    q: Floats
    index: Indices
    numbers: Indices
    focal: float


def _fence_gaps(p: OpenPixels) -> NDArray[np.bool_]:
    """Between bars, planks or wires; rails and posts are solid."""
    period, height, kind = p.q[0], p.q[1], p.q[2]
    mesh, plank = kind > _MESHED, (kind > _PLANKED) & (kind < _MESHED)
    along = (p.u / period) % 1
    slanted = (((p.u + p.v) / period) % 1 > _WIRE) & (((p.u - p.v) / period) % 1 > _WIRE)
    gap = np.where(mesh, slanted, along > np.where(plank, np.float32(_PLANK), np.float32(_BAR)))
    # a fence that runs away from the camera passes many bars within one pixel
    pixel_along = np.maximum(p.depth / np.float32(p.focal), p.depth**2 * np.abs(p.slope))
    share = np.array(_OPEN_SHARE, np.float32).take(np.clip(kind, 0, 2).astype(np.intp))
    gap = np.where(pixel_along > 0.7 * period, cell_hash(p.index, p.numbers, 7) < share, gap)
    solid = (p.v > height - _RAIL) | ((p.v > _LOW_RAIL[0]) & (p.v < _LOW_RAIL[1])) | (p.u % _POST_STEP < _POST)
    return np.asarray(gap & ~solid)


def _twig_gaps(p: OpenPixels) -> NDArray[np.bool_]:
    """Between twigs: more towards the rim of the crown."""
    radius, density = np.maximum(p.q[0], np.float32(0.3)), p.q[1]
    rim = (p.u / radius) ** 2 + (p.v / radius) ** 2
    offset = (p.numbers % 64) * np.float32(0.37)
    twig = np.abs(noise(FBM, p.u / _TWIG_SCALE + offset, p.v / _TWIG_SCALE + offset))
    return np.asarray(twig > density * np.clip(1.25 - rim, 0.1, 1.0))


GAPS: dict[Material, Callable[[OpenPixels], NDArray[np.bool_]]] = {
    Material.BARS: _fence_gaps,
    Material.TWIGS: _twig_gaps,
}
"""The materials that one can see through, each with where: (n,) true in the gaps."""

"""The ground: asphalt with its markings, slabs, grass."""

from __future__ import annotations

import numpy as np

from dgss.streets.kinds import Colour
from dgss.streets.noise import BLOTCH, FBM, FINE, Floats, Indices, cell_hash, noise
from dgss.streets.patches import Patch, Surface
from dgss.streets.road import MARK_WHITE, ZEBRA_DEPTH, Mark

_STOP_LINE = 0.4  # metres
_ZEBRA_PERIOD = 1.1  # metres
_PATCH = (2.3, 7.0)  # metres across and along of a mended piece of asphalt
_PATCH_SHARE = 0.06
_JOINT = 0.03  # metres
_SOIL = (0.3, 0.22, 0.1)


def asphalt(p: Patch) -> Surface:
    """Road: stains, grain, mended pieces, tyre tracks, then the markings."""
    amp, u, v = np.float32(p.light.texture), p.u, p.v
    large = noise(FBM, u / 5, v / 9)
    tone = 0.22 * large + 0.12 * noise(BLOTCH, u / 17, v / 31) + 0.3 * noise(FINE, u / 1.7, v / 1.7) * p.fade(0.04)
    mended = cell_hash(np.floor(u / _PATCH[0]), np.floor(v / _PATCH[1]), 5) < _PATCH_SHARE
    lane = (u - np.float32(p.road.bound(0))) * np.float32(4 * np.pi / p.road.lane_width)
    tracks = (0.5 - 0.5 * np.cos(lane)) ** 3
    albedo = p.colour * (1 + amp * (tone - 0.1 * tracks - 0.12 * mended))
    for mark in p.road.marks:
        _paint_line(p, albedo, mark, large)
    _paint_crossing(p, albedo, large)
    return Surface(albedo)


def _paint_line(p: Patch, albedo: Floats, mark: Mark, worn: Floats) -> None:
    distance = np.abs(p.u - np.float32(mark.at))
    near = np.flatnonzero(distance < mark.half_width + p.footprint)
    footprint, along = p.footprint[near], p.v[near]
    cover = np.clip((mark.half_width - distance[near]) / footprint + 0.5, 0, 1)
    cover *= np.minimum(2 * mark.half_width / footprint, 1)
    if mark.period:
        cover *= ((along + mark.phase) / mark.period) % 1 < mark.duty
    if p.road.crossing:
        begin, end = p.road.crossing
        cover *= (along < begin - 1) | (along > end + 1)
    if p.road.zebra is not None:
        cover *= (along < p.road.zebra - 1.5) | (along > p.road.zebra + ZEBRA_DEPTH + 0.5)
    _mix_paint(albedo, near, cover, mark.colour, worn, p.light.texture)


def _paint_crossing(p: Patch, albedo: Floats, worn: Floats) -> None:
    """Zebra stripes and the stop line."""
    road = p.road
    stop = road.zebra - 1.2 if road.zebra is not None else road.crossing[0] - 2.2 if road.crossing else None
    if road.zebra is not None:
        band = np.flatnonzero((p.v > road.zebra) & (p.v < road.zebra + ZEBRA_DEPTH))
        stripes = (p.u[band] / _ZEBRA_PERIOD) % 1 < 0.5
        _mix_paint(albedo, band, stripes.astype(np.float32), MARK_WHITE, worn, p.light.texture)
    if stop is not None and stop > 3:
        first = road.bound(road.lanes // 2) + 0.2
        across = (p.u > first) & (p.u < road.bound(road.lanes) - 0.2)
        line = np.flatnonzero(across & (np.abs(p.v - (stop - _STOP_LINE / 2)) < _STOP_LINE / 2))
        _mix_paint(albedo, line, np.ones(len(line), np.float32), MARK_WHITE, worn, p.light.texture)


def _mix_paint(albedo: Floats, at: Indices, cover: Floats, colour: Colour, worn: Floats, texture: float) -> None:
    """Road paint over the asphalt, thin where the noise is low."""
    cover = cover * np.clip(0.95 + 0.7 * min(texture, 1.0) * worn[at], 0.25, 1)
    for channel in range(3):
        albedo[channel, at] += cover * (np.float32(colour[channel]) - albedo[channel, at])


def slabs(p: Patch) -> Surface:
    """Sidewalk and kerb: slabs with joints, each with its own tint."""
    amp = np.float32(p.light.texture)
    edge = p.q[0]
    across, along = p.u / edge, p.v / edge
    column, row = np.floor(across), np.floor(along)
    joint = np.float32(_JOINT) / edge
    seam = (across - column < joint) | (along - row < joint)
    tint = p.q[1] * (cell_hash(column, row, 3) - 0.5) * p.fade(0.6)
    tone = 1 + amp * (0.14 * noise(FBM, p.u / 4, p.v / 4) + tint) - 0.35 * seam * p.fade(0.06)
    return Surface(p.colour * tone)


def grass(p: Patch) -> Surface:
    """Terrain: grass with bare and dry places."""
    amp = np.float32(p.light.texture)
    tone = 1 + (0.3 + 0.25 * amp) * noise(FBM, p.u / 4, p.v / 4) + 0.6 * amp * noise(FINE, p.u, p.v) * p.fade(0.08)
    dry = np.clip(0.1 + 0.6 * noise(BLOTCH, p.u / 23, p.v / 23), 0, 0.5) * min(p.light.texture, 1.0)
    soil = np.array(_SOIL, np.float32)[:, None]
    return Surface((p.colour * (1 - dry) + soil * dry) * tone)

"""Facades: windows by storey and bay, shops on the ground floor, light behind windows at night."""

from __future__ import annotations

import numpy as np

from dgss.streets.gbuffer import Table
from dgss.streets.noise import BLOTCH, FBM, FINE, Floats, Indices, cell_hash, noise
from dgss.streets.patches import Patch, Surface

_FRAME = 0.07  # metres around a window
_WINDOW_TOP = 0.82  # part of the storey
_SHOP = (0.42, 0.08, 0.78)  # half width, bottom, top: parts of bay and storey
_SHOP_STYLES = 0.7  # facades of a lower style have shops on the ground floor
_FASCIA = (0.81, 0.98)  # bottom and top of the board over a shop, parts of the storey
_CURTAIN = (0.42, 0.4, 0.36)
_PANE = (0.05, 0.06, 0.07)
_WARM = (0.8, 0.55, 0.25)  # light behind windows
_DETAIL = 0.9  # metres: facades whose pixels are larger blend to one colour


def facade(p: Patch) -> Surface:
    """Walls with windows by storey and bay; shops on the ground floor of some."""
    amp = np.float32(p.light.texture)
    storey_height, bay_width = p.q[0], p.q[1]
    bays, storeys = p.u / bay_width, p.v / storey_height
    bay, storey = np.floor(bays), np.floor(storeys)
    across, up = np.abs(bays - bay - 0.5), storeys - storey
    half, low = _windows(p.table)
    shops = p.table.q[2] < _SHOP_STYLES
    ground = (shops.take(p.numbers) & (storey < 1)).astype(np.float32)
    half = _lerp(half.take(p.numbers), _SHOP[0], ground)
    inside = np.minimum(
        (half - across) * bay_width,
        np.minimum(up - _lerp(low.take(p.numbers), _SHOP[1], ground), _lerp(_WINDOW_TOP, _SHOP[2], ground) - up)
        * storey_height,
    )
    pane = np.clip(inside / p.footprint + 0.5, 0, 1)
    framed = np.clip((inside + _FRAME) / p.footprint + 0.5, 0, 1) - pane
    pane *= 1 - 0.7 * ((across * bay_width < 0.03) & (ground < 0.5)) * p.fade(0.06)
    wall = _plaster(p, up, storey, amp)
    _paint_fascia(p, wall, np.flatnonzero((ground > 0) & (up > _FASCIA[0]) & (up < _FASCIA[1])), bay)
    draw = cell_hash(bay, storey, p.numbers)
    albedo = wall + framed * (0.25 * wall + 0.06)
    glass = _glass(draw)
    albedo += pane * (glass - albedo)
    far = 1 - p.fade(_DETAIL)
    albedo += far * (0.72 * p.colour + 0.03 - albedo)
    upper = np.clip(0.25 + 0.12 * storey, 0, 0.8)
    gloss = pane * (1 - far) * np.clip(draw - 0.4, 0, 0.4) * upper * (draw < 0.8)
    return Surface(albedo, gloss, _lit(p, pane, draw, ground))


def _windows(table: Table) -> tuple[Floats, Floats]:
    """Half width (part of the bay) and lower edge (part of the storey) of the windows, by primitive: (P,) each."""
    style, share = table.q[2], table.q[3]
    half = np.where(style < 0.5, share / 2, np.where(style < 0.75, np.float32(0.47), 0.3 * share + 0.1))
    low = np.where(style > 0.8, np.float32(0.16), np.float32(0.3))
    return half.astype(np.float32), low.astype(np.float32)


def _plaster(p: Patch, up: Floats, storey: Floats, amp: np.float32) -> Floats:
    """The bare wall: stains, courses of brick where they can be seen, a line at each storey, a dark foot."""
    tone = 0.2 * noise(BLOTCH, p.u / 9, p.v / 9) + 0.2 * noise(FBM, p.u / 6, p.v / 6)
    tone += 0.22 * noise(FINE, p.u / 1.1, p.v / 2.4) * p.fade(0.08)
    line = (up > 0.96) & (storey >= 0)
    return p.colour * (1 + amp * tone - 0.25 * line * p.fade(0.25) - 0.15 * (p.v < 0.4))


def _paint_fascia(p: Patch, wall: Floats, at: Indices, bay: Floats) -> None:
    """The coloured board over each shop, two bays wide."""
    shop, number = np.floor(bay[at] / 2), p.numbers[at]
    shade = 0.06 + 0.5 * cell_hash(shop, number, 11)
    for channel in range(3):
        wall[channel, at] = shade * (0.25 + cell_hash(shop, number, 12 + channel))


def _glass(draw: Floats) -> Floats:
    """Window colour (3, n) from a draw per window: dark, or a light curtain."""
    curtain = (draw > 0.8).astype(np.float32)
    dark = 0.6 + 1.6 * draw
    return np.stack(
        [pane * dark + curtain * (cloth - pane * dark) for pane, cloth in zip(_PANE, _CURTAIN, strict=True)]
    )


def _lit(p: Patch, pane: Floats, draw: Floats, ground: Floats) -> Floats | None:
    """Light from windows at night: (3, n)."""
    if not p.light.lit_windows:
        return None
    share = p.light.lit_windows * (1 + 0.6 * ground)
    strength = pane * ((draw * 7.3) % 1 < share) * (0.35 + 0.6 * draw)
    return np.stack([strength * part for part in _WARM])


def _lerp(first: Floats | float, second: float, part: Floats) -> Floats:
    return np.asarray(first + part * (second - first), np.float32)

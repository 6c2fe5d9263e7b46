"""Materials: the colour of every pixel of a surface before any light falls on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dgss.streets.facades import facade
from dgss.streets.kinds import Glow, Material
from dgss.streets.noise import BLOTCH, FBM, FINE, LEAFY, Floats, cell_hash, noise
from dgss.streets.patches import LOWEST_VEHICLE, Patch, Surface
from dgss.streets.paving import asphalt, grass, slabs

_TILE_ROW = 0.35  # metres
_AT_NIGHT = tuple({Glow.HEAD: 7.0, Glow.TAIL: 2.5, Glow.STREET: 6.0, Glow.SIGNAL: 1.5}.get(kind, 0.0) for kind in Glow)


def stone(p: Patch) -> Surface:
    """A running bond of bricks or blocks."""
    amp = np.float32(p.light.texture)
    length, height = p.q[0], p.q[1]
    rows = p.v / np.maximum(height, np.float32(0.05))
    row = np.floor(rows)
    columns = p.u / np.maximum(length, np.float32(0.05)) + 0.5 * (row % 2)
    column = np.floor(columns)
    joint = ((columns - column) * length < 0.03) | ((rows - row) * height < 0.03)
    block = 0.3 * (cell_hash(column, row, p.numbers) - 0.5) * p.fade(0.4)
    tone = 1 + amp * (block + 0.16 * noise(BLOTCH, p.u / 7, p.v / 7)) - 0.3 * joint * p.fade(0.06)
    return Surface(p.colour * tone)


def bars(p: Patch) -> Surface:
    """The solid parts of a fence."""
    return Surface(p.colour * (1 + 0.2 * np.float32(p.light.texture) * noise(FBM, p.u / 3, p.v / 3)))


def leaf(p: Patch) -> Surface:
    """Leaves: light above, dark below, clumps and grain."""
    amp = np.float32(p.light.texture)
    up = np.clip(p.v / np.maximum(p.q[0], np.float32(0.2)), -1, 1)
    clumps = (0.35 + 0.3 * amp) * noise(LEAFY, p.u / 3, p.v / 3)
    grain = 0.55 * amp * noise(FINE, p.u * 0.6, p.v * 0.6) * p.fade(0.12)
    return Surface(p.colour * np.maximum(1.2 * (0.66 + 0.3 * up) * (1 + clumps + grain), np.float32(0.08)))


def twigs(p: Patch) -> Surface:
    """Twigs and the leaves at the rim of a crown."""
    return Surface(p.colour * (1 + 0.4 * np.float32(p.light.texture) * noise(LEAFY, p.u / 3, p.v / 3)))


def paint(p: Patch) -> Surface:
    """Vehicle bodies: darker towards the ground, a bright crease, the sky on what looks up."""
    part = p.y / np.maximum(p.q[0], np.float32(LOWEST_VEHICLE))
    tone = 0.62 + 0.5 * part
    crease = 0.05 * np.exp(-(((part - 0.6) / 0.06) ** 2))
    facing_up = _facing_up(p)
    gloss = np.float32(0.03) + 0.12 * facing_up
    return Surface(p.colour * tone + crease * 0.6, gloss)


def glass(p: Patch) -> Surface:
    """Vehicle windows: dark, with the sky on them."""
    part = p.y / np.maximum(p.q[0], np.float32(LOWEST_VEHICLE))
    facing_up = _facing_up(p)
    streak = noise(BLOTCH, p.u / 6 + p.numbers * np.float32(0.17), p.v / 6)
    gloss = np.clip(0.04 + 0.14 * facing_up + 0.12 * (part - 0.6) + 0.09 * streak, 0.01, 0.4)
    return Surface(0.8 * p.colour, gloss)


def cloth(p: Patch) -> Surface:
    """Clothes and skin: rounded, with folds."""
    tone = 1 + 0.3 * np.float32(p.light.texture) * noise(FBM, p.u, p.v)
    return Surface(p.colour * tone * _round(p, 0.28))


def roof(p: Patch) -> Surface:
    """Roof tiles in rows."""
    row = (p.v / _TILE_ROW) % 1 < 0.25
    tone = 1 + np.float32(p.light.texture) * 0.2 * noise(BLOTCH, p.u / 6, p.v / 6) - 0.2 * row * p.fade(0.12)
    return Surface(p.colour * tone)


def metal(p: Patch) -> Surface:
    """Posts, plates, tyres: plain; posts are round."""
    return Surface(p.colour * _round(p, 0.45))


def _round(p: Patch, depth: float) -> Floats:
    """Shading of an upright cylinder of half width q0 around u = 0; flat where q0 is 0."""
    side = np.clip(p.u / np.maximum(p.q[0], np.float32(1e-3)), -1, 1)
    shade: Floats = 1 - np.float32(depth) * side * side * (p.q[0] > 0)
    return shade


def lamp(p: Patch) -> Surface:
    """Lamps: their own light on top of their colour; at night every lamp shines."""
    strength = p.q[0]
    if p.light.lit_windows:
        strength = strength + np.array(_AT_NIGHT, np.float32).take(p.q[1].astype(np.intp))
    return Surface(p.colour, None, p.colour * strength)


SURFACES: dict[Material, Callable[[Patch], Surface]] = {
    Material.ASPHALT: asphalt,
    Material.SLABS: slabs,
    Material.GRASS: grass,
    Material.FACADE: facade,
    Material.STONE: stone,
    Material.BARS: bars,
    Material.LEAF: leaf,
    Material.PAINT: paint,
    Material.GLASS: glass,
    Material.CLOTH: cloth,
    Material.ROOF: roof,
    Material.METAL: metal,
    Material.LAMP: lamp,
    Material.TWIGS: twigs,
}


def _facing_up(p: Patch) -> Floats:
    """How far each pixel's surface looks at the sky: (n,), 0 to 1."""
    up: Floats = np.maximum(p.table.normal[1], 0)
    return up.take(p.numbers)

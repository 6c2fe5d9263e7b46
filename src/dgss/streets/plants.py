"""Trees, bushes and the far line of trees."""

from __future__ import annotations

from math import cos, pi, sin

from dgss.streets.buildings import BACKGROUND
from dgss.streets.kinds import Colour, Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import PaletteKind, mixed, scaled
from dgss.streets.raster import Brush, Canvas, Point2

_TURN = 2 * pi
_CORNERS, _FINE_CORNERS = 16, 28  # of a clump of leaves, far and near
_JITTER = 0.18  # of its radius
_CROWN_CENTRE = 0.68  # of the height of a tree
_BARE_SHARE = 0.25  # of the trees outside the game
_CONIFER_SHARE = 0.2
_RIM_DENSITY, _TWIG_DENSITY = 0.3, 0.16  # of leaves at the rim, of bare twigs: noise levels
_FINE = 22.0  # buffer pixels of radius above which crowns have more clumps, and clumps more corners
_TIER_EDGE = ((0.0, 0.0), (0.14, 0.12), (0.3, 0.0), (0.42, 0.12), (0.6, 0.0), (0.72, 0.12), (1.0, 0.0))
"""Edge of a tier of a conifer: parts of its height, and metres by which the branch tips hang lower."""


def tree(canvas: Canvas, stream: Stream, x: float, z: float, small: bool = False) -> None:
    """A tree standing at (x, z): leafy, conifer or, outside the game, bare."""
    height, radius = stream.uniform(5, 11), stream.uniform(1.8, 3.6)
    if small:
        height, radius = 0.75 * height, 0.7 * radius
    bark = canvas.palette.colour("bark", stream)
    leaf = canvas.palette.colour("leaf", stream)
    brush = canvas.brush(Label.VEGETATION)
    bare = canvas.palette.kind is not PaletteKind.GAME and stream.chance(_BARE_SHARE)
    if bare:
        _branches(brush, stream, x, z, height, scaled(bark, 0.8))
    elif stream.chance(_CONIFER_SHARE):
        _conifer(brush, stream, x, z, height, mixed(leaf, (0.03, 0.06, 0.04), 0.4), bark)
    else:
        _trunk(brush, x, z, 0.7 * height, bark)
        _crown(brush, stream, (x, _CROWN_CENTRE * height), z, radius, leaf)
    canvas.touch([(x - 0.2, z - 0.2), (x + 0.2, z - 0.2), (x + 0.2, z + 0.2), (x - 0.2, z + 0.2)])
    if not bare:
        reach = 0.8 * radius
        ring = [(x + reach * cos(a), z + reach * sin(a)) for a in (0.0, 0.8, 1.6, 2.4, 3.2, 4.0, 4.8, 5.6)]
        canvas.cast(ring, height, base=0.4 * height)
    canvas.cast([(x - 0.15, z), (x + 0.15, z), (x + 0.15, z + 0.2), (x - 0.15, z + 0.2)], 0.6 * height)


def _trunk(brush: Brush, x: float, z: float, top: float, colour: Colour) -> None:
    outline = [(x - 0.16, 0.0), (x - 0.09, top), (x + 0.09, top), (x + 0.16, 0.0)]
    brush.front(z, outline, Material.METAL, colour, (0.16,), (x, 0.0))


def _crown(brush: Brush, stream: Stream, centre: Point2, z: float, radius: float, colour: Colour) -> None:
    """Loose leaves at the rim, then clumps around the centre, the low and dark ones first."""
    rim = (*centre, 1.08 * radius)
    _open_crown(brush, stream, rim, z, scaled(colour, 0.8), _RIM_DENSITY)
    fine = brush.canvas.camera.scale(z) * radius > _FINE
    clumps = []
    for _ in range(stream.whole(6, 10) + 5 * fine):
        angle, distance = stream.uniform(0, _TURN), radius * stream.uniform(0.2, 0.75)
        clumps.append((centre[1] + 0.85 * distance * sin(angle), centre[0] + distance * cos(angle)))
    clumps.sort()
    size = (0.3, 0.5) if fine else (0.35, 0.6)
    for y, x in [centre[::-1], *clumps]:
        lift = (y - centre[1]) / radius
        tint = scaled(colour, stream.uniform(0.82, 1.12) * (1 + 0.22 * lift))
        _disc(brush, stream, (x, y), z, radius * stream.uniform(*size), tint, (radius, centre))


def _open_crown(
    brush: Brush, stream: Stream, crown: tuple[float, float, float], z: float, colour: Colour, density: float
) -> None:
    """Twigs with gaps, over the whole crown (x, y, radius): what shows through is vegetation all the same."""
    x, y, radius = crown
    outline = []
    for corner in range(_FINE_CORNERS):
        angle = _TURN * corner / _FINE_CORNERS
        reach = radius * (1 + 0.6 * _JITTER * stream.uniform(-1, 1))
        outline.append((x + reach * cos(angle), max(y + reach * sin(angle), 0.3)))
    brush.front(z, outline, Material.TWIGS, colour, (radius, density), (x, y))


def _disc(
    brush: Brush,
    stream: Stream,
    centre: Point2,
    z: float,
    radius: float,
    colour: Colour,
    crown: tuple[float, Point2],
) -> None:
    """A clump of a crown (its radius and centre), with a ragged edge."""
    near = brush.canvas.camera.scale(z) * radius > _FINE
    corners = _FINE_CORNERS if near else _CORNERS
    outline = []
    for corner in range(corners):
        angle = _TURN * corner / corners
        reach = radius * (1 + _JITTER * stream.uniform(-1, 1))
        outline.append((centre[0] + reach * cos(angle), max(centre[1] + reach * sin(angle), 0.0)))
    brush.front(z, outline, Material.LEAF, colour, (crown[0],), crown[1])


def _conifer(brush: Brush, stream: Stream, x: float, z: float, height: float, colour: Colour, bark: Colour) -> None:
    """Four stacked tiers with stepped edges."""
    _trunk(brush, x, z, 0.3 * height, bark)
    base_width = height * stream.uniform(0.2, 0.28)
    for tier in range(4):
        low, high = height * (0.12 + 0.2 * tier), height * (0.46 + 0.18 * tier)
        width = base_width * (1 - 0.21 * tier)
        edge = [(width * (1 - part), low + part * (high - low) - drop) for part, drop in _TIER_EDGE]
        left = [(x - reach, y) for reach, y in edge]
        right = [(x + reach, y) for reach, y in edge[::-1]]
        tint = scaled(colour, 0.85 + 0.1 * tier)
        brush.front(z, [*left, *right], Material.LEAF, tint, (base_width * 1.6,), (x, 0.5 * height))


def _branches(brush: Brush, stream: Stream, x: float, z: float, height: float, colour: Colour) -> None:
    """A bare tree: a trunk, limbs and twigs that fork outwards."""
    width = 0.36 * height * stream.uniform(0.8, 1.1)
    _open_crown(brush, stream, (x, 0.66 * height, width), z, scaled(colour, 1.2), _TWIG_DENSITY)
    _trunk(brush, x, z, 0.55 * height, colour)
    far = brush.canvas.camera.scale(z) * height < 40
    for _ in range(7 if far else 12):
        start = (x + stream.uniform(-0.05, 0.05), height * stream.uniform(0.25, 0.56))
        angle = stream.uniform(0.25, 2.9)
        length = height * stream.uniform(0.25, 0.42)
        end = (start[0] + 0.75 * length * cos(angle), start[1] + length * sin(angle))
        brush.line(z, start, end, 0.07, Material.METAL, colour)
        for _ in range(0 if far else 3):
            part = stream.uniform(0.4, 1.0)
            fork = (start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1]))
            turn = angle + stream.uniform(-0.9, 0.9)
            twig = length * stream.uniform(0.3, 0.55)
            tip = (fork[0] + twig * cos(turn), fork[1] + twig * sin(turn))
            brush.line(z, fork, tip, 0.03, Material.METAL, colour)


def bush(canvas: Canvas, stream: Stream, x: float, z: float) -> None:
    """A low bush: three clumps on the ground."""
    radius = stream.uniform(0.4, 0.9)
    colour = canvas.palette.colour("leaf", stream)
    brush = canvas.brush(Label.VEGETATION)
    for offset in (-0.6, 0.6, 0.0):
        place = (x + offset * radius, radius * stream.uniform(0.5, 0.8))
        tint = scaled(colour, stream.uniform(0.85, 1.1))
        _disc(brush, stream, place, z, radius * stream.uniform(0.7, 1.0), tint, (radius, (x, 0.6 * radius)))
    foot = [(x - radius, z - 0.3), (x + radius, z - 0.3), (x + radius, z + 0.3), (x - radius, z + 0.3)]
    canvas.touch(foot)
    canvas.cast(foot, 1.3 * radius)


def tree_line(canvas: Canvas, stream: Stream) -> None:
    """A far line of trees that closes the street."""
    brush = canvas.brush(Label.VEGETATION)
    colour = canvas.palette.colour("leaf", stream)
    x = -BACKGROUND
    while x < BACKGROUND:
        radius = stream.uniform(4, 10)
        tint = scaled(colour, stream.uniform(0.8, 1.2))
        _disc(brush, stream, (x, radius * 0.6), BACKGROUND, radius, tint, (radius, (x, radius * 0.5)))
        x += radius * stream.uniform(0.5, 1.2)

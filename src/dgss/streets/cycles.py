"""Bicycles and motorcycles, parked or ridden, from the side or from an end."""

from __future__ import annotations

from dataclasses import dataclass

from dgss.streets.furniture import disc, rectangle
from dgss.streets.kinds import Colour, Glow, Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import BLACK, TYRE, scaled
from dgss.streets.people import rider
from dgss.streets.raster import Brush, Canvas, Point2
from dgss.streets.solids import HEAD_LIGHT, TAIL_LIGHT

_BICYCLE_FOOT, _MOTORCYCLE_FOOT = 0.55, 0.42  # metres above ground
_FAR = 9.0  # buffer pixels per metre under which wheels have fewer corners


@dataclass(frozen=True)
class _View:
    """A two-wheeler in one plane. `facing`: 1 heads right, -1 left, 0 away or towards."""

    brush: Brush
    x: float
    z: float
    facing: int
    colour: Colour

    def place(self, points: list[Point2]) -> list[Point2]:
        """Points of a machine that heads right at x = 0, in the world."""
        turn = self.facing or 1
        return [(self.x + turn * px, py) for px, py in points]

    def fill(self, points: list[Point2], colour: Colour, material: Material = Material.METAL) -> None:
        """A flat piece."""
        self.brush.front(self.z, self.place(points), material, colour)

    def bar(self, start: Point2, end: Point2, width: float, colour: Colour) -> None:
        """A tube."""
        first, last = self.place([start, end])
        self.brush.line(self.z, first, last, width, Material.METAL, colour)

    def ring(self, centre: Point2, radius: float, thickness: float) -> None:
        """A wheel, open between rim and hub."""
        corners = 12 if self.brush.canvas.camera.scale(self.z) < _FAR else 20
        thickness = min(max(thickness, 1.4 / self.brush.canvas.camera.scale(self.z)), 0.8 * radius)
        (place,) = self.place([centre])
        hole = disc(place, radius - thickness, corners)
        self.brush.front(self.z, disc(place, radius, corners), Material.METAL, TYRE, hole=hole)


def two_wheeler(
    canvas: Canvas, stream: Stream, x: float, z: float, label: Label, facing: int, ridden: bool, towards: bool = False
) -> None:
    """A bicycle or motorcycle at (x, z), with its rider when ridden, and its shadow."""
    colour = canvas.palette.colour("two-wheeler", stream)
    view = _View(canvas.brush(label, thing=True), x, z, facing, colour)
    bicycle = label == Label.BICYCLE
    if facing:
        (_bicycle_side if bicycle else _motorcycle_side)(view)
    else:
        (_bicycle_end if bicycle else _motorcycle_end)(view, towards)
    if ridden:
        rider(canvas, stream, x, z, _BICYCLE_FOOT if bicycle else _MOTORCYCLE_FOOT, facing)
    half, deep = (0.85, 0.15) if facing else (0.2, 0.8)
    foot = [(x - half, z - deep), (x + half, z - deep), (x + half, z + deep), (x - half, z + deep)]
    canvas.touch(foot)
    canvas.cast(foot, 1.7 if ridden else 0.9)


def _bicycle_side(view: _View) -> None:
    rear, front, crank = (-0.52, 0.34), (0.52, 0.34), (-0.08, 0.3)
    seat, head = (-0.2, 0.85), (0.36, 0.86)
    for hub in (rear, front):
        view.ring(hub, 0.34, 0.045)
    tubes = ((rear, crank), (rear, seat), (crank, seat), (crank, head), (seat, head), (head, front), (head, (0.4, 1.0)))
    for start, end in tubes:
        view.bar(start, end, 0.05, view.colour)
    view.fill(rectangle(-0.34, 0.9, -0.06, 0.97), BLACK)
    view.bar((-0.2, 0.84), (-0.2, 0.92), 0.04, BLACK)
    view.bar((0.3, 1.03), (0.5, 1.0), 0.04, BLACK)


def _bicycle_end(view: _View, towards: bool) -> None:
    view.fill(rectangle(-0.05, 0.0, 0.05, 0.68), TYRE)
    view.bar((0.0, 0.6), (0.0, 1.0), 0.06, view.colour)
    view.bar((-0.28, 1.02), (0.28, 1.02), 0.05, BLACK)
    view.fill(rectangle(-0.09, 0.88, 0.09, 0.96), BLACK)
    if not towards:
        view.brush.front(view.z, disc((view.x, 0.72), 0.05, 6), Material.LAMP, TAIL_LIGHT, (0.0, float(Glow.NONE)))


def _motorcycle_side(view: _View) -> None:
    rear, front = (-0.68, 0.31), (0.68, 0.31)
    for hub in (rear, front):
        view.ring(hub, 0.31, 0.17)
    view.fill([(-0.3, 0.25), (-0.35, 0.55), (0.25, 0.6), (0.3, 0.28)], scaled(BLACK, 2.5))
    view.fill(
        [(-0.9, 0.66), (-0.85, 0.78), (-0.1, 0.74), (0.0, 0.9), (0.36, 0.94), (0.42, 0.66), (-0.2, 0.58)],
        view.colour,
        Material.PAINT,
    )
    view.fill([(-0.8, 0.78), (-0.78, 0.86), (-0.05, 0.8), (-0.08, 0.73)], BLACK)
    view.bar(front, (0.42, 0.95), 0.08, scaled(BLACK, 6))
    view.bar((0.3, 1.05), (0.44, 0.95), 0.06, BLACK)
    view.bar((-0.7, 0.36), (-0.1, 0.32), 0.09, scaled(BLACK, 8))
    view.fill(rectangle(0.44, 0.8, 0.56, 0.96), HEAD_LIGHT)


def _motorcycle_end(view: _View, towards: bool) -> None:
    view.fill(rectangle(-0.09, 0.0, 0.09, 0.62), TYRE)
    view.fill(
        [(-0.2, 0.5), (-0.24, 0.8), (-0.12, 0.98), (0.12, 0.98), (0.24, 0.8), (0.2, 0.5)], view.colour, Material.PAINT
    )
    view.bar((-0.38, 1.04), (0.38, 1.04), 0.06, BLACK)
    lamp = (
        disc((view.x, 0.84), 0.1, 10) if towards else [(view.x + px, py) for px, py in rectangle(-0.1, 0.72, 0.1, 0.8)]
    )
    colour, glow = (HEAD_LIGHT, Glow.HEAD) if towards else (TAIL_LIGHT, Glow.TAIL)
    view.brush.front(view.z, lamp, Material.LAMP, colour, (0.0, float(glow)))

"""Flat parts of solid vehicles: where a vehicle stands, and rectangles and discs on its sides and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin

from dgss.streets.kinds import Colour, Glow, Label, Material
from dgss.streets.palettes import BLACK, TYRE, WHITE, scaled
from dgss.streets.raster import NEAR, Brush, Canvas, Point2, Point3

FINE = 9.0
"""Buffer pixels per metre above which small parts are drawn."""
COARSE = 3.5
"""Buffer pixels per metre under which only the body is drawn."""
TAIL_LIGHT: Colour = (0.5, 0.02, 0.02)
HEAD_LIGHT: Colour = (0.75, 0.75, 0.7)
_WHEEL_CORNERS = 14
_CIRCLE = tuple((cos(2 * pi * k / _WHEEL_CORNERS), sin(2 * pi * k / _WHEEL_CORNERS)) for k in range(_WHEEL_CORNERS))
_HUB: Colour = scaled(WHITE, 0.42)
_WHEEL_RINGS = ((1.16, BLACK), (1.0, TYRE), (0.6, _HUB), (0.16, TYRE))  # part of the radius, colour
_SMALL_RINGS = (1.16, 0.16)


@dataclass(frozen=True)
class Frame:
    """Where a vehicle stands: the middle of its rear on the ground, and its heading (sine and cosine, 0 = away)."""

    x: float
    z: float
    sine: float = 0.0
    cosine: float = 1.0

    def world(self, along: float, across: float, up: float) -> Point3:
        """A point `along` metres ahead of the rear, `across` to its right, `up` above ground."""
        return (
            self.x + across * self.cosine + along * self.sine,
            up,
            self.z + along * self.cosine - across * self.sine,
        )

    def footprint(self, length: float, half: float) -> list[Point2]:
        """The four corners on the ground (x, z)."""
        corners = ((0.0, -half), (0.0, half), (length, half), (length, -half))
        return [(p[0], p[2]) for p in (self.world(along, across, 0.0) for along, across in corners)]


def standing(x: float, near: float, length: float, heading: float = 0.0, oncoming: bool = False) -> Frame:
    """The frame of a vehicle whose near end lies at depth `near`; `heading`: radians off the road's direction."""
    if oncoming:
        return Frame(x, near + length, sin(heading), -cos(heading))
    return Frame(x, near, sin(heading), cos(heading))


@dataclass(frozen=True)
class Solid:
    """Draws flat parts of one vehicle, seen from outside only; `scale`: buffer pixels per metre at its near end."""

    brush: Brush
    frame: Frame
    scale: float

    @classmethod
    def start(cls, canvas: Canvas, label: Label, frame: Frame, length: float) -> Solid:
        """A new instance of this class."""
        nearest = min(frame.world(along, 0.0, 0.0)[2] for along in (0.0, length))
        return cls(canvas.brush(label, thing=True), frame, canvas.camera.scale(max(nearest, NEAR)))

    def part(self, corners: Sequence[Point3], material: Material, colour: Colour, q: Sequence[float] = ()) -> None:
        """A flat part, its corners (along, across, up) clockwise seen from outside."""
        self.brush.face([self.frame.world(*corner) for corner in corners], material, colour, q, solid=True)

    def end(
        self,
        along: float,
        facing: int,
        box: tuple[float, float, float, float],
        material: Material,
        colour: Colour,
        q: Sequence[float] = (),
    ) -> None:
        """A rectangle (left, bottom, right, top) across the vehicle; facing -1 looks back, 1 ahead."""
        left, bottom, right, top = box
        corners = [(along, left, bottom), (along, left, top), (along, right, top), (along, right, bottom)]
        self.part(corners[::-facing], material, colour, q)

    def side(
        self, across: float, outline: Sequence[Point2], material: Material, colour: Colour, q: Sequence[float] = ()
    ) -> None:
        """A polygon (along, up), from rear over the top to the front, on the side that `across` lies."""
        corners = [(along, across, up) for along, up in outline]
        self.part(corners if across > 0 else corners[::-1], material, colour, q)

    def top(self, span: tuple[float, float], half: float, up: float, colour: Colour, q: Sequence[float] = ()) -> None:
        """A level roof."""
        begin, end = span
        corners = [(begin, -half, up), (end, -half, up), (end, half, up), (begin, half, up)]
        self.part(corners, Material.PAINT, colour, q)

    def box(
        self, span: tuple[float, float], half: float, levels: tuple[float, float], colour: Colour, height: float
    ) -> None:
        """An upright box: the faces that are seen."""
        (begin, end), (low, high), q = span, levels, (height,)
        self.top(span, half, high, colour, q)
        self.end(begin, -1, (-half, low, half, high), Material.PAINT, colour, q)
        self.end(end, 1, (-half, low, half, high), Material.PAINT, colour, q)
        for across in (-half, half):
            self.side(across, ((begin, low), (begin, high), (end, high), (end, low)), Material.PAINT, colour, q)

    def wheel(self, along: float, across: float, radius: float) -> None:
        """A wheel on the side at `across`."""
        for size, colour in _WHEEL_RINGS:
            if self.scale < FINE and size in _SMALL_RINGS:
                continue
            reach = size * radius
            outline = [(along + reach * cx, max(radius + reach * cy, 0.0)) for cx, cy in _CIRCLE[::-1]]
            self.side(across, outline, Material.METAL, colour)

    def tyres(self, along: float, facing: int, half: float, up: float) -> None:
        """The dark gap under the body and the tyres, seen from an end."""
        self.end(along, facing, (-half + 0.1, 0.14, half - 0.1, up), Material.METAL, BLACK)
        for left in (-half + 0.03, half - 0.24):
            self.end(along, facing, (left, 0.0, left + 0.21, up), Material.METAL, TYRE)

    def lights(self, along: float, facing: int, half: float, levels: tuple[float, float], braking: float) -> None:
        """A pair of tail lights (facing -1) or headlights (1); `braking`: own light of the tail lights."""
        colour, glow = (TAIL_LIGHT, Glow.TAIL) if facing < 0 else (HEAD_LIGHT, Glow.HEAD)
        strength = braking if facing < 0 else 0.0
        for left, right in ((-0.97 * half, -0.64 * half), (0.64 * half, 0.97 * half)):
            box = (left, levels[0], right, levels[1])
            self.end(along, facing, box, Material.LAMP, colour, (strength, float(glow)))

    def shade(self, length: float, half: float, height: float) -> None:
        """The shadow on the ground."""
        footprint = self.frame.footprint(length, half)
        self.brush.canvas.touch(footprint)
        self.brush.canvas.cast(footprint, height)

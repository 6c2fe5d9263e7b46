"""Cars: a profile drawn across the width, narrower towards the roof, with glass, wheels and lights."""

from __future__ import annotations

from dataclasses import dataclass

from dgss.streets.kinds import Colour, Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import BLACK, GLASS, WHITE, scaled
from dgss.streets.raster import Canvas, Point2, Point3
from dgss.streets.solids import COARSE, FINE, Frame, Solid

_BRAKING = 0.5  # own light of a braking tail lamp by day
_BRAKING_SHARE = 0.3
_CLOSED_SHARE = 0.5  # of the vans
_TUMBLEHOME = 0.2  # part of the half width lost from belt to roof
_NOSE = 0.95  # part of the width left at both ends
_PILLAR = 0.012  # half a pillar, part of the length
_SILL, _LINTEL = 0.02, 0.95  # windows begin this much over the belt and end here, parts of the height


@dataclass(frozen=True)
class Body:
    """A kind of car, metres. Corners of the profile: (part of the length from the rear, part of the height).

    belt: height where the glass begins. glass: the edges of the profile (by first corner) of rear window and
    windscreen. pillars: between the side windows. wheels: parts of the length.
    """

    length: float
    width: float
    height: float
    belt: float
    profile: tuple[Point2, ...]
    pillars: tuple[float, ...]
    wheels: tuple[float, float] = (0.19, 0.81)
    glass: tuple[int, int] = (3, 7)


# fmt: off
BODIES = {
    "sedan": Body(4.4, 1.78, 1.45, 0.68, (
        (0, 0.22), (0, 0.5), (0.015, 0.63), (0.16, 0.68), (0.3, 0.95), (0.36, 1),
        (0.58, 1), (0.64, 0.965), (0.77, 0.68), (0.965, 0.55), (1, 0.45), (1, 0.2)), (0.47,)),
    "hatchback": Body(3.9, 1.72, 1.48, 0.66, (
        (0, 0.22), (0, 0.52), (0.015, 0.63), (0.03, 0.66), (0.11, 0.93), (0.18, 1),
        (0.5, 1), (0.57, 0.965), (0.74, 0.66), (0.955, 0.55), (1, 0.45), (1, 0.2)), (0.4,)),
    "estate": Body(4.6, 1.8, 1.5, 0.65, (
        (0, 0.22), (0, 0.5), (0.012, 0.62), (0.02, 0.65), (0.08, 0.94), (0.13, 1),
        (0.55, 1), (0.61, 0.965), (0.75, 0.65), (0.96, 0.54), (1, 0.44), (1, 0.2)), (0.24, 0.46)),
    "suv": Body(4.6, 1.9, 1.75, 0.64, (
        (0, 0.26), (0, 0.55), (0.012, 0.61), (0.02, 0.64), (0.07, 0.94), (0.12, 1),
        (0.56, 1), (0.62, 0.97), (0.73, 0.64), (0.965, 0.58), (1, 0.48), (1, 0.24)), (0.26, 0.46)),
    "van": Body(4.9, 1.95, 2.0, 0.57, (
        (0, 0.18), (0, 0.5), (0.008, 0.54), (0.012, 0.57), (0.03, 0.95), (0.06, 1),
        (0.68, 1), (0.74, 0.97), (0.87, 0.57), (0.97, 0.48), (1, 0.4), (1, 0.16)), (0.34, 0.6)),
}
# fmt: on


def car(canvas: Canvas, stream: Stream, body: Body, frame: Frame) -> None:
    """A car of this kind, with its shadow."""
    colour = canvas.palette.colour("car", stream)
    solid = Solid.start(canvas, Label.CAR, frame, body.length)
    braking = _BRAKING * stream.chance(_BRAKING_SHARE)
    closed = body is BODIES["van"] and stream.chance(_CLOSED_SHARE)
    _Car(solid, body, colour).draw(braking, closed)
    solid.shade(body.length, body.width / 2, body.height)


@dataclass(frozen=True)
class _Car:
    """Draws one car."""

    solid: Solid
    body: Body
    colour: Colour

    def draw(self, braking: float, closed: bool) -> None:
        """All parts, the hidden first. `closed`: no side windows but the front one."""
        body, solid = self.body, self.solid
        half, gap = body.width / 2, 0.26 * body.height
        solid.tyres(0.02 * body.length, -1, half, gap)
        solid.tyres(0.98 * body.length, 1, half, gap)
        for edge in sorted(range(1, len(body.profile) - 2), key=self._depth, reverse=True):
            self._strip(edge)
        for side in (-1, 1):
            self._side(side, closed)
        self._end(0, -1, braking)
        self._end(len(body.profile) - 2, 1, braking)
        if solid.scale > COARSE:
            radius = 0.32 if body.height < 1.6 else 0.36
            for side in (-1, 1):
                for wheel in body.wheels:
                    solid.wheel(wheel * body.length, side * (half + 0.01), radius)

    def _point(self, along: float, up: float, side: int) -> Point3:
        """A point of the profile on one side, in metres: narrower towards the roof and the ends."""
        body = self.body
        waist = 1 - _TUMBLEHOME * max(0.0, (up - body.belt) / (1 - body.belt))
        nose = _NOSE if along < 0.01 or along > 0.99 else 1.0
        return along * body.length, side * 0.5 * body.width * waist * nose, up * body.height

    def _depth(self, edge: int) -> float:
        along = (self.body.profile[edge][0] + self.body.profile[edge + 1][0]) / 2
        return self.solid.frame.world(along * self.body.length, 0.0, 0.0)[2]

    def _strip(self, edge: int) -> None:
        """One edge of the profile across the whole width: boot, rear window, roof, windscreen, bonnet."""
        first, last = self.body.profile[edge : edge + 2]
        corners = [self._point(*first, -1), self._point(*last, -1), self._point(*last, 1), self._point(*first, 1)]
        q = (self.body.height,)
        self.solid.part(corners, Material.PAINT, self.colour, q)
        if edge in self.body.glass:
            self.solid.part(_shrunk(corners, 0.9, 0.88), Material.GLASS, GLASS, q)

    def _side(self, side: int, closed: bool) -> None:
        """Lower body, the part around the windows, the windows."""
        body = self.body
        low = [point for point in body.profile if point[1] <= body.belt + 0.001]
        high = [point for point in body.profile if point[1] >= body.belt - 0.001]
        self._panel(side, low, Material.PAINT, self.colour)
        self._panel(side, high, Material.PAINT, self.colour)
        if self.solid.scale > COARSE:
            for window in self._windows(high, closed):
                self._panel(side, window, Material.GLASS, GLASS)

    def _windows(self, high: list[Point2], closed: bool) -> list[list[Point2]]:
        """The side windows between the pillars, as parts of the profile."""
        bottom = self.body.belt + _SILL
        begin, begin_top = high[0][0] + 0.03, high[1][0] + 0.025
        end, end_top = high[-1][0] - 0.03, high[-2][0] - 0.01
        windows: list[list[Point2]] = []
        for pillar in self.body.pillars:
            stop = pillar - _PILLAR
            windows.append([(begin, bottom), (max(begin_top, begin), _LINTEL), (stop, _LINTEL), (stop, bottom)])
            begin = begin_top = pillar + _PILLAR
        windows.append([(begin, bottom), (begin_top, _LINTEL), (end_top, _LINTEL), (end, bottom)])
        return windows[-1:] if closed else windows

    def _panel(self, side: int, outline: list[Point2], material: Material, colour: Colour) -> None:
        corners = [self._point(along, up, side) for along, up in outline]
        self.solid.part(corners if side > 0 else corners[::-1], material, colour, (self.body.height,))

    def _end(self, edge: int, facing: int, braking: float) -> None:
        """Panel, bumper, lights and plate of the rear (facing -1) or of the front (1)."""
        body, solid = self.body, self.solid
        low, high = sorted(point[1] * body.height for point in body.profile[edge : edge + 2])
        rise = high - low
        along = 0.0 if facing < 0 else body.length
        half = _NOSE * body.width / 2
        q = (body.height,)
        solid.end(along, facing, (-half, low, half, high), Material.PAINT, self.colour, q)
        if solid.scale < COARSE:
            return
        solid.end(along, facing, (-half, low, half, low + 0.3 * rise), Material.PAINT, scaled(self.colour, 0.6), q)
        if facing > 0:
            grille = (-0.55 * half, low + 0.45 * rise, 0.55 * half, low + 0.85 * rise)
            solid.end(along, facing, grille, Material.METAL, BLACK)
        solid.lights(along, facing, half, (low + 0.5 * rise, low + 0.95 * rise), braking)
        if solid.scale > FINE:
            plate = (-0.27, low + 0.36 * rise, 0.27, low + 0.36 * rise + 0.11)
            solid.end(along, facing, plate, Material.METAL, WHITE)


def _shrunk(corners: list[Point3], across: float, along: float) -> list[Point3]:
    """A part drawn in towards its middle: `across` the width of the car and `along` its length."""
    middle = sum(corner[0] for corner in corners) / 4, sum(corner[2] for corner in corners) / 4
    return [
        (middle[0] + along * (x - middle[0]), across * y, middle[1] + along * (z - middle[1])) for x, y, z in corners
    ]

"""The road: lanes, kerbs, sidewalks, verges, crossing street, markings; and its ground, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgss.streets.kinds import Colour, Label, Material
from dgss.streets.noise import Floats, Stream
from dgss.streets.palettes import PaletteKind, scaled
from dgss.streets.raster import Camera, Canvas, Row

KERB = 0.22
"""Width of the kerb stone in metres."""
CORNER = 2.5
"""Width of the sidewalk along a crossing street in metres."""
PARKING = 2.2
"""Width of a parking lane in metres."""
ZEBRA_DEPTH = 3.2
"""Length of a zebra crossing along the road in metres."""
BEND_END = 200.0
"""Depth in metres beyond which the road runs straight."""
_HORIZON_GAP = 0.6  # buffer pixels under the horizon where the ground begins
_STRONGEST_BEND = 0.004  # metres of shift per squared metre of depth
_KERB_LIGHTER = 1.15
_KERB_SEAMS = (9.0, 0.1)  # metres from joint to joint, difference in tint

MARK_WHITE: Colour = (0.62, 0.62, 0.6)
MARK_YELLOW: Colour = (0.75, 0.5, 0.06)
KERB_YELLOW: Colour = (0.5, 0.38, 0.1)


@dataclass(frozen=True)
class Mark:
    """A painted line along the road: centre and half width in metres; dashed where the period is not 0."""

    at: float
    half_width: float
    colour: Colour = MARK_WHITE
    period: float = 0.0
    duty: float = 1.0
    phase: float = 0.0


@dataclass(frozen=True)
class Verge:
    """What lies beyond a kerb: strips (class, begin, end), metres outside the kerb, and where buildings stand."""

    strips: tuple[tuple[Label, float, float], ...]
    line: float

    def middle(self, label: Label) -> float:
        """The middle of the strip of this class, or of the whole verge where there is none."""
        for name, begin, end in self.strips:
            if name == label:
                return (begin + end) / 2
        return self.line / 2


@dataclass(frozen=True)
class Road:
    """The cross-section of the street in metres, seen from a camera at lateral position 0 in its own lane."""

    lane_width: float
    lanes: int
    ego: int
    left: float
    right: float
    parking: tuple[bool, bool]
    verges: tuple[Verge, Verge]
    bend: float
    crossing: tuple[float, float] | None
    zebra: float | None
    marks: tuple[Mark, ...]
    slab: float

    def bound(self, lane: int) -> float:
        """Lateral position of the left bound of a lane."""
        return (lane - self.ego - 0.5) * self.lane_width

    def bent(self, x: float, z: float) -> float:
        """Where a lateral position lies at depth z."""
        return x + self.bend * min(z, BEND_END) ** 2

    def beside(self, side: int, distance: float, z: float) -> float:
        """World x of a point `distance` metres outside the kerb of a side (-1 left, 1 right) at depth z."""
        kerb = self.left if side < 0 else self.right
        return self.bent(kerb + side * distance, z)

    def verge(self, side: int) -> Verge:
        """What lies beyond the kerb of a side (-1 left, 1 right)."""
        return self.verges[0 if side < 0 else 1]

    def oncoming(self, lane: int) -> bool:
        """Whether traffic of this lane comes towards the camera."""
        return lane < self.lanes // 2


def lay_road(stream: Stream, kind: PaletteKind) -> Road:
    """Draws a road from the layout stream."""
    lane_width = stream.uniform(3.1, 3.6)
    lanes = stream.whole(2, 3) if kind is PaletteKind.PHOTO else stream.whole(2, 4)
    ego = stream.whole(lanes // 2, lanes - 1)
    parking = (stream.chance(0.42), stream.chance(0.46))
    left = (-ego - 0.5) * lane_width - PARKING * parking[0]
    right = (lanes - ego - 0.5) * lane_width + PARKING * parking[1]
    verges = (_lay_verge(stream), _lay_verge(stream))
    bend = _STRONGEST_BEND * stream.uniform(-1, 1) ** 3
    crossing, zebra = _lay_crossing(stream)
    marks = _lay_marks(stream, kind, lane_width, lanes, ego, (left, right))
    slab = stream.pick((0.4, 0.6, 1.0))
    return Road(lane_width, lanes, ego, left, right, parking, verges, bend, crossing, zebra, marks, slab)


def _lay_verge(stream: Stream) -> Verge:
    sidewalk = stream.uniform(2.2, 5.0) if stream.chance(0.88) else 0.0
    if not sidewalk:
        grass = stream.uniform(2, 7)
        return Verge(((Label.TERRAIN, 0.0, grass),), grass)
    grass = stream.uniform(1, 5) if stream.chance(0.4) else 0.0
    if not grass:
        return Verge(((Label.SIDEWALK, 0.0, sidewalk),), sidewalk)
    inner, outer = (Label.SIDEWALK, Label.TERRAIN), (sidewalk, grass)
    if stream.chance(0.4):
        inner, outer = (Label.TERRAIN, Label.SIDEWALK), (grass, sidewalk)
    return Verge(((inner[0], 0.0, outer[0]), (inner[1], outer[0], sidewalk + grass)), sidewalk + grass)


def _lay_crossing(stream: Stream) -> tuple[tuple[float, float] | None, float | None]:
    if stream.chance(0.45):
        begin = stream.uniform(14, 45)
        width = stream.uniform(7, 11)
        zebra = begin - 4 if begin > 16 and stream.chance(0.6) else None
        return (begin, begin + width), zebra
    return None, stream.uniform(6, 25) if stream.chance(0.25) else None


def _lay_marks(
    stream: Stream, kind: PaletteKind, lane_width: float, lanes: int, ego: int, kerbs: tuple[float, float]
) -> tuple[Mark, ...]:
    """Lane lines, the centre line, edge lines and, now and then, yellow lines along the kerbs."""
    half, period, duty = stream.uniform(0.06, 0.1), stream.uniform(8, 13), stream.uniform(0.3, 0.5)
    marks = []
    for lane in range(1, lanes):
        at = (lane - ego - 0.5) * lane_width
        phase = stream.uniform(0, period)
        if lane != lanes // 2:
            marks.append(Mark(at, half, MARK_WHITE, period, duty, phase))
        elif kind is PaletteKind.GAME:
            marks += [Mark(at - 0.16, half, MARK_YELLOW), Mark(at + 0.16, half, MARK_YELLOW)]
        else:
            marks.append(Mark(at, half, MARK_WHITE, *((period / 2, duty, phase) if stream.chance(0.6) else ())))
    if stream.chance(0.7):
        first, last = (-ego - 0.5) * lane_width, (lanes - ego - 0.5) * lane_width
        marks += [Mark(first + 0.15, half), Mark(last - 0.15, half)]
    if kind is not PaletteKind.GAME and stream.chance(0.25):
        marks += [Mark(kerbs[0] + offset, 0.05, KERB_YELLOW) for offset in (0.22, 0.42)]
        marks += [Mark(kerbs[1] - offset, 0.05, KERB_YELLOW) for offset in (0.22, 0.42)]
    return tuple(marks)


def pave(canvas: Canvas, road: Road, stream: Stream) -> None:
    """Enters the ground in the table and writes its numbers below the horizon."""
    camera, palette = canvas.camera, canvas.palette
    slabs = palette.colour("sidewalk", stream)
    seams = (road.slab, stream.uniform(0.1, 0.3))
    asphalt = palette.colour("road", stream)
    stones = scaled(slabs, _KERB_LIGHTER)
    grounds = _Grounds(
        road=canvas.add(_ground_row(camera, Label.ROAD, Material.ASPHALT, asphalt)),
        kerb=canvas.add(_ground_row(camera, Label.SIDEWALK, Material.SLABS, stones, _KERB_SEAMS)),
        sidewalk=canvas.add(_ground_row(camera, Label.SIDEWALK, Material.SLABS, slabs, seams)),
        terrain=canvas.add(_ground_row(camera, Label.TERRAIN, Material.GRASS, palette.colour("terrain", stream))),
    )
    first = int(camera.horizon + _HORIZON_GAP) + 1
    rows = np.arange(first, camera.height, dtype=np.float32)[:, None] - np.float32(camera.horizon)
    depth = np.float32(camera.focal * camera.level) / rows
    columns = np.arange(camera.width, dtype=np.float32)[None, :] - np.float32(camera.centre)
    lateral = columns * (depth / np.float32(camera.focal)) - np.float32(road.bend) * np.minimum(depth, BEND_END) ** 2
    canvas.numbers[first:] = grounds.classify(road, lateral, depth)


@dataclass(frozen=True)
class _Grounds:
    """Primitive numbers of the kinds of ground."""

    road: int
    kerb: int
    sidewalk: int
    terrain: int

    def classify(self, road: Road, lateral: Floats, depth: Floats) -> NDArray[np.int32]:
        """Primitive numbers of ground pixels (h, W) from their lateral position (h, W) and depth (h, 1), metres."""
        names = {Label.SIDEWALK: self.sidewalk, Label.TERRAIN: self.terrain}
        numbers = np.full(lateral.shape, self.road, np.int32)
        for side, edge in ((-1, road.left), (1, road.right)):
            outside = (lateral - np.float32(edge)) * np.float32(side)
            numbers[outside > 0] = self.terrain
            for label, begin, end in road.verge(side).strips:
                numbers[(outside > begin) & (outside < end)] = names[label]
            numbers[(outside > 0) & (outside < KERB)] = self.kerb
        if road.crossing:
            begin, end = road.crossing
            beyond = (lateral < road.left) | (lateral > road.right)
            off = np.abs(depth - (begin + end) / 2) - (end - begin) / 2  # metres outside the crossing street
            numbers[beyond & (off < CORNER)] = self.sidewalk
            numbers[beyond & (off < KERB)] = self.kerb
            numbers[np.broadcast_to(off < 0, lateral.shape)] = self.road
        return numbers


def _ground_row(
    camera: Camera, label: Label, material: Material, colour: Colour, q: tuple[float, float] = (0.0, 0.0)
) -> Row:
    """A row of the table for the ground."""
    inverse = (0.0, 1 / (camera.level * camera.focal), 0.0)
    return Row(label, 0, material, inverse, (0.0, 1.0, 0.0), (0.0, 0.0), colour, (*q, 0.0, 0.0))

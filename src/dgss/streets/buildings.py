"""What lines the street: buildings, walls, fences, rails, and the skyline far behind."""

from __future__ import annotations

from dgss.streets.kinds import Colour, Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import hsv, mixed, scaled
from dgss.streets.raster import NEAR, Brush, Canvas, Point2, Point3
from dgss.streets.road import Road

BACKGROUND = 150.0
"""Depth in metres of the skyline or the line of trees that closes the street."""
_DEPTH = 16.0  # metres from the facade to the back of a building
_CORNER_DEPTH = 45.0  # the same where the end wall looks on a crossing street
_ROOF_RISE = 3.2
_ROOF_RUN = 6.0
_PITCHED_BELOW = 16.0  # metres; higher buildings have flat roofs
_COPING = 0.12
_SHADOW_END = 90.0  # metres; farther shadows are too thin to see


def building(
    canvas: Canvas, stream: Stream, road: Road, side: int, begin: float, end: float, corner: bool = False
) -> None:
    """A building along the street from depth `begin` to `end`, with its near end wall, roof and shadow."""
    storey = stream.uniform(2.8, 3.6)
    wanted = max(4.0, stream.uniform(6, 15) * stream.uniform(0.6, 1.6))
    height = max(1, round(wanted / storey)) * storey + 0.3
    setback = road.verge(side).line + stream.uniform(0, 0.8)
    near: Point2 = (road.beside(side, setback, begin), begin)
    far: Point2 = (road.beside(side, setback, end), end)
    colour = canvas.palette.colour("building", stream)
    windows = (storey, stream.uniform(1.8, 3.6), stream.uniform(), stream.uniform(0.35, 0.7))
    brush = canvas.brush(Label.BUILDING)
    pitched = height < _PITCHED_BELOW and stream.chance(0.45)
    roof = canvas.palette.colour("roof", stream)
    depth = _CORNER_DEPTH if corner else _DEPTH
    if pitched:
        _slope(brush, side, near, far, height, roof)
    _end_wall(brush, side, near, depth, height, pitched, colour, windows)
    brush.face(_upright(near, far, 0.0, height), Material.FACADE, colour, windows, (begin, 0.0))
    if pitched:
        _chimneys(brush, stream, side, near, far, height, colour)
    elif stream.chance(0.6):
        _cornice(brush, near, far, height, scaled(colour, stream.uniform(0.7, 1.2)))
    if begin < _SHADOW_END:
        back = side * depth
        canvas.cast([near, far, (far[0] + back, far[1]), (near[0] + back, near[1])], height)


def _end_wall(
    brush: Brush,
    side: int,
    near: Point2,
    depth: float,
    height: float,
    pitched: bool,
    colour: Colour,
    q: tuple[float, ...],
) -> None:
    x, z = near
    outline: list[Point2] = [(x, 0.0), (x, height)]
    if pitched:
        outline.append((x + side * _ROOF_RUN, height + _ROOF_RISE))
        outline.append((x + side * 2 * _ROOF_RUN, height))
        depth = 2 * _ROOF_RUN
    else:
        outline.append((x + side * depth, height))
    outline.append((x + side * depth, 0.0))
    brush.front(z, outline, Material.FACADE, scaled(colour, 0.94), q, (x, 0.0))


def _slope(brush: Brush, side: int, near: Point2, far: Point2, height: float, colour: Colour) -> None:
    """The roof slope over the street; the overhang hides the eaves."""
    eaves, ridge = height - 0.15, height + _ROOF_RISE
    corners: list[Point3] = [
        (near[0] - side * 0.3, eaves, near[1]),
        (near[0] + side * _ROOF_RUN, ridge, near[1]),
        (far[0] + side * _ROOF_RUN, ridge, far[1]),
        (far[0] - side * 0.3, eaves, far[1]),
    ]
    brush.face(corners if side < 0 else corners[::-1], Material.ROOF, colour, solid=True)


def _chimneys(
    brush: Brush,
    stream: Stream,
    side: int,
    near: Point2,
    far: Point2,
    height: float,
    colour: Colour,
) -> None:
    for _ in range(stream.whole(0, 2)):
        part = stream.uniform(0.1, 0.9)
        z = near[1] + part * (far[1] - near[1])
        x = near[0] + part * (far[0] - near[0]) + side * _ROOF_RUN
        base, top = height + 2.2, height + _ROOF_RISE + 1.1
        outline = [(x - 0.45, base), (x - 0.45, top), (x + 0.45, top), (x + 0.45, base)]
        brush.front(z, outline, Material.STONE, scaled(colour, 0.7), (0.4, 0.15))


def _cornice(brush: Brush, near: Point2, far: Point2, height: float, colour: Colour) -> None:
    brush.face(_upright(near, far, height - 0.45, height + 0.1), Material.METAL, colour)


def _upright(near: Point2, far: Point2, bottom: float, top: float) -> list[Point3]:
    """An upright rectangle over the line from `near` to `far` (x, z)."""
    return [
        (near[0], bottom, near[1]),
        (near[0], top, near[1]),
        (far[0], top, far[1]),
        (far[0], bottom, far[1]),
    ]


def wall(canvas: Canvas, stream: Stream, road: Road, side: int, begin: float, end: float) -> None:
    """A garden wall along the building line, with a coping strip."""
    height = stream.uniform(1.2, 3.2)
    line = road.verge(side).line
    near, far = (road.beside(side, line, begin), begin), (road.beside(side, line, end), end)
    colour = canvas.palette.colour("wall", stream)
    brush = canvas.brush(Label.WALL)
    q = (stream.uniform(0.35, 0.9), stream.uniform(0.15, 0.4))
    if begin > NEAR:
        x = near[0]
        cheek = [(x, 0.0), (x, height), (x + side * 0.3, height), (x + side * 0.3, 0.0)]
        brush.front(begin, cheek, Material.STONE, scaled(colour, 0.9), q)
    brush.face(_upright(near, far, 0.0, height), Material.STONE, colour, q)
    brush.face(_upright(near, far, height - _COPING, height), Material.METAL, scaled(colour, 1.25))
    if begin < _SHADOW_END:
        canvas.cast([near, far, (far[0] + side * 0.3, far[1]), (near[0] + side * 0.3, near[1])], height)


def fence(canvas: Canvas, stream: Stream, road: Road, side: int, begin: float, end: float) -> None:
    """A fence along the building line: bars, planks or mesh."""
    kind = stream.whole(0, 2)
    _barrier(canvas, stream, (side, road.verge(side).line), road, (begin, end), stream.uniform(1.1, 2.2), kind)


def rail(canvas: Canvas, stream: Stream, road: Road, side: int, begin: float, end: float) -> None:
    """A piece of a low rail at the kerb."""
    _barrier(canvas, stream, (side, 0.3), road, (begin, end), stream.uniform(0.7, 1.1), 0)


def _barrier(
    canvas: Canvas,
    stream: Stream,
    place: tuple[int, float],
    road: Road,
    span: tuple[float, float],
    height: float,
    kind: int,
) -> None:
    side, distance = place
    near = (road.beside(side, distance, span[0]), span[0])
    far = (road.beside(side, distance, span[1]), span[1])
    colour = canvas.palette.colour("fence", stream)
    q = (stream.uniform(0.12, 0.2), height, float(kind), stream.uniform())
    canvas.brush(Label.FENCE).face(_upright(near, far, 0.0, height), Material.BARS, colour, q, (span[0], 0.0))


def skyline(canvas: Canvas, stream: Stream) -> None:
    """A row of far blocks that closes the street."""
    brush = canvas.brush(Label.BUILDING)
    x = -BACKGROUND
    while x < BACKGROUND:
        width, height = stream.uniform(9, 26), stream.uniform(7, 30)
        colour = mixed(canvas.palette.colour("building", stream), hsv(0.58, 0.1, 0.5), 0.3)
        windows = (3.2, stream.uniform(2, 3.5), stream.uniform(), 0.5)
        outline = [(x, 0.0), (x, height), (x + width, height), (x + width, 0.0)]
        brush.front(BACKGROUND, outline, Material.FACADE, colour, windows, (x, 0.0))
        x += width + (stream.uniform(0, 12) if stream.chance(0.4) else 0.0)

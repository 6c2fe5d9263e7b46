"""What stands where: camera, road, street sides, furniture and people, from one stream of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import cos, pi, sin

from dgss.streets import buildings, furniture, plants
from dgss.streets.kinds import Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import Palette, PaletteKind
from dgss.streets.people import person
from dgss.streets.raster import Camera, Canvas, Point3, Row
from dgss.streets.road import Road, lay_road, pave

Draw = Callable[[Canvas], None]

SUPERSAMPLING = 2
"""Buffer pixels per image pixel in each direction."""
STREET_END = 135.0
"""Depth in metres where the street sides end."""
OUTER, INNER = 0, 1
"""Layers of one stretch of street: the sides, then what stands between them."""
_STREET_BEGIN = (-6.0, 2.0)  # metres
_SEGMENT = (8.0, 24.0)
_BUILT_SHARE = (0.4, 0.85)
_SIDE_SHARES = (("trees", 0.3), ("wall", 0.3), ("fence", 0.28), ("open", 0.12))  # of the segments without building
_RAIL_END = 60.0


@dataclass(frozen=True)
class Thing:
    """Something to draw. Drawn by falling stretch (beyond, in, before the crossing street), layer, falling depth."""

    stretch: int
    layer: int
    depth: float
    draw: Draw


@dataclass
class Scene:
    """A street before it is drawn."""

    camera: Camera
    sun: Point3
    road: Road
    background: str
    things: list[Thing] = field(default_factory=list)
    lamps: list[furniture.StreetLamp] = field(default_factory=list)

    def put(self, layer: int, depth: float, draw: Draw) -> None:
        """Adds something whose near end lies at this depth."""
        self.things.append(Thing(self._stretch(depth), layer, depth, draw))

    def _stretch(self, depth: float) -> int:
        if self.road.crossing is None or depth < self.road.crossing[0] - 0.5:
            return 0
        return 1 if depth < self.road.crossing[1] else 2

    def draw(self, stream: Stream, palette: Palette) -> Canvas:
        """The filled canvas; primitive 0 is the sky."""
        canvas = Canvas(self.camera, palette, self.sun)
        canvas.add(
            Row(Label.SKY, 0, Material.SKY, (0.0, 0.0, 1e-4), (0.0, 0.0, 0.0), (0.0, 0.0), (0.5, 0.6, 0.8), (0,) * 4)
        )
        pave(canvas, self.road, stream)
        if self.background == "city":
            buildings.skyline(canvas, stream)
        elif self.background == "trees":
            plants.tree_line(canvas, stream)
        for thing in sorted(self.things, key=lambda thing: (-thing.stretch, thing.layer, -thing.depth)):
            thing.draw(canvas)
        return canvas


def place_camera(stream: Stream, kind: PaletteKind, size: tuple[int, int]) -> Camera:
    """A camera for an image of size (H, W)."""
    height, width = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    level = stream.uniform(1.4, 2.0) if kind is PaletteKind.GAME else stream.uniform(1.2, 1.8)
    return Camera(
        width=width,
        height=height,
        focal=width * stream.uniform(0.75, 1.0),
        centre=width * (0.5 + stream.uniform(-0.13, 0.13)),
        horizon=height * stream.uniform(0.37, 0.52),
        level=level,
    )


def build_scene(stream: Stream, kind: PaletteKind, size: tuple[int, int]) -> Scene:
    """Lays out a street for an image of size (H, W): nothing here knows how it will look."""
    camera = place_camera(stream, kind, size)
    elevation, azimuth = stream.uniform(0.35, 1.1), stream.uniform(0, 2 * pi)
    sun = (cos(elevation) * sin(azimuth), sin(elevation), cos(elevation) * cos(azimuth))
    road = lay_road(stream, kind)
    draw = stream.uniform()
    background = "city" if draw < 0.4 else "trees" if draw < 0.8 else "none"
    scene = Scene(camera, sun, road, background)
    urban = stream.uniform(*_BUILT_SHARE)
    for side in (-1, 1):
        _line_side(scene, stream, side, urban)
        _furnish_side(scene, stream, side)
        _people_side(scene, stream, side)
    _furnish_crossing(scene, stream)
    return scene


def _line_side(scene: Scene, stream: Stream, side: int, urban: float) -> None:
    """Segments along one side: buildings, trees, walls, fences, openings."""
    crossing = scene.road.crossing
    z = stream.uniform(*_STREET_BEGIN)
    after_crossing = False
    while z < STREET_END:
        end = z + stream.uniform(*_SEGMENT)
        if crossing and z < crossing[1] and end > crossing[0] - 1.5:
            end = crossing[0] - stream.uniform(1.0, 3.0)
        if end - z > 3:
            kind = "building" if stream.chance(urban) else _pick_side(stream)
            _SEGMENTS[kind](scene, stream, side, z, end, after_crossing)
            after_crossing = False
        z = max(end, z) + (stream.uniform(0, 4) if stream.chance(0.3) else 0.0)
        if crossing and z > crossing[0] - 5 and z < crossing[1]:
            z = crossing[1] + stream.uniform(1.5, 3.5)
            after_crossing = True


def _pick_side(stream: Stream) -> str:
    draw = stream.uniform()
    for name, share in _SIDE_SHARES:
        if draw < share:
            return name
        draw -= share
    return _SIDE_SHARES[-1][0]


def _built(scene: Scene, stream: Stream, side: int, begin: float, end: float, corner: bool) -> None:
    draw = partial(
        buildings.building, stream=stream.child(), road=scene.road, side=side, begin=begin, end=end, corner=corner
    )
    scene.put(OUTER, begin, draw)


def _planted(scene: Scene, stream: Stream, side: int, begin: float, end: float, count: int) -> None:
    """Trees somewhat behind the building line."""
    for _ in range(count):
        z = stream.uniform(begin, end)
        distance = scene.road.verge(side).line + stream.uniform(1.5, 6)
        if z > 2:
            draw = partial(plants.tree, stream=stream.child(), x=scene.road.beside(side, distance, z), z=z)
            # a tree of this segment stands behind its wall: never drawn after what begins nearer
            scene.put(OUTER, max(z, begin + 0.01), draw)


def _grove(scene: Scene, stream: Stream, side: int, begin: float, end: float, corner: bool) -> None:
    _planted(scene, stream, side, begin, end, max(2, round((end - begin) / stream.uniform(3, 6))))


def _walled(scene: Scene, stream: Stream, side: int, begin: float, end: float, corner: bool) -> None:
    _planted(scene, stream, side, begin, end, max(1, round((end - begin) / 6)))
    draw = partial(buildings.wall, stream=stream.child(), road=scene.road, side=side, begin=begin, end=end)
    scene.put(OUTER, begin, draw)


def _fenced(scene: Scene, stream: Stream, side: int, begin: float, end: float, corner: bool) -> None:
    _planted(scene, stream, side, begin, end, stream.whole(0, 4))
    draw = partial(buildings.fence, stream=stream.child(), road=scene.road, side=side, begin=begin, end=end)
    scene.put(OUTER, begin, draw)


def _open(scene: Scene, stream: Stream, side: int, begin: float, end: float, corner: bool) -> None:
    """Nothing but grass."""


_SEGMENTS: dict[str, Callable[[Scene, Stream, int, float, float, bool], None]] = {
    "building": _built,
    "trees": _grove,
    "wall": _walled,
    "fence": _fenced,
    "open": _open,
}


def _clear(scene: Scene, z: float) -> bool:
    """Whether a place on the verge is off the crossing street."""
    crossing = scene.road.crossing
    return z > 2 and (crossing is None or not crossing[0] - 1 < z < crossing[1] + 1)


def _furnish_side(scene: Scene, stream: Stream, side: int) -> None:
    """Rail, kerb trees, bushes, street lights, posts and signs of one side."""
    road = scene.road
    if stream.chance(0.12):
        _rail(scene, stream.child(), side)
    if stream.chance(0.36):
        _row_of_trees(scene, stream, side)
    if stream.chance(0.35):
        for _ in range(stream.whole(1, 5)):
            z = stream.uniform(6, 60)
            if _clear(scene, z):
                x = road.beside(side, road.verge(side).line - stream.uniform(0.2, 0.8), z)
                scene.put(INNER, z, partial(plants.bush, stream=stream.child(), x=x, z=z))
    if stream.chance(0.7):
        _row_of_lights(scene, stream, side)
    for _ in range(stream.whole(0, 3)):
        z = 5 + 45 * stream.uniform() ** 1.3
        if _clear(scene, z):
            x = road.beside(side, stream.uniform(0.35, 0.8), z)
            scene.put(INNER, z, partial(furniture.bollard, stream=stream.child(), x=x, z=z))
    for _ in range(stream.whole(0, 3)):
        z = 6 + 40 * stream.uniform() ** 1.2
        if _clear(scene, z):
            x = road.beside(side, stream.uniform(0.5, 1.1), z)
            scene.put(INNER, z, partial(furniture.traffic_sign, stream=stream.child(), x=x, z=z))


def _rail(scene: Scene, stream: Stream, side: int) -> None:
    """A rail at the kerb in pieces, each sorted on its own."""
    z, seed = stream.uniform(3, 10), stream.bits()
    stop = z + stream.uniform(8, 50)
    while z < min(stop, _RAIL_END):
        end = z + max(2.4, round(0.12 * z) * 2.4)
        if _clear(scene, z) and _clear(scene, end):
            draw = partial(buildings.rail, stream=Stream(seed), road=scene.road, side=side, begin=z, end=end)
            scene.put(INNER, z, draw)
        z = end


def _row_of_trees(scene: Scene, stream: Stream, side: int) -> None:
    step, small = stream.uniform(8, 16), stream.chance(0.5)
    distance = stream.uniform(0.7, 1.3)
    z = stream.uniform(4, 4 + step)
    while z < 100:
        if _clear(scene, z):
            x = scene.road.beside(side, distance, z)
            scene.put(INNER, z, partial(plants.tree, stream=stream.child(), x=x, z=z, small=small))
        z += step * stream.uniform(0.9, 1.1)


def _row_of_lights(scene: Scene, stream: Stream, side: int) -> None:
    """Street lights of one make, evenly spaced."""
    step, seed = stream.uniform(14, 28), stream.bits()
    make = Stream(seed)
    height, arm = make.uniform(5.5, 8.5), make.uniform(0.6, 2.0)
    z = stream.uniform(4, 4 + step)
    while z < 110:
        if _clear(scene, z):
            x = scene.road.beside(side, 0.5, z)
            draw = partial(furniture.street_light, stream=Stream(seed), x=x, z=z, side=side)
            scene.put(INNER, z, draw)
            scene.lamps.append(furniture.StreetLamp(x - side * arm, height, z))
        z += step


def _people_side(scene: Scene, stream: Stream, side: int) -> None:
    """People on one sidewalk, some in pairs."""
    road = scene.road
    middle = road.verge(side).middle(Label.SIDEWALK)
    for _ in range(stream.whole(2, 14)):
        if not stream.chance(0.8):
            continue
        z = 4 + 60 * stream.uniform() ** 1.6
        offset = middle + stream.uniform(-0.9, 0.9)
        for step in (0.0, 0.55) if stream.chance(0.3) else (0.0,):
            x = road.beside(side, max(offset + step, 0.4), z)
            place = z + 0.3 * step
            scene.put(INNER, place, partial(person, stream=stream.child(), x=x, z=place))


def _furnish_crossing(scene: Scene, stream: Stream) -> None:
    """Traffic lights and people where the road is crossed; a gantry elsewhere."""
    road = scene.road
    lit = stream.whole(0, 2)
    if road.crossing:
        for z, share in ((road.crossing[0] - 1.2, 0.9), (road.crossing[1] + 1.0, 0.6)):
            for side in (-1, 1):
                if stream.chance(share):
                    draw = partial(furniture.traffic_light, stream=stream.child(), x=road.beside(side, 0.5, z), z=z)
                    scene.put(INNER, z, partial(draw, side=side, lit=lit))
    elif stream.chance(0.15):
        z = stream.uniform(14, 50)
        left, right = road.beside(-1, 0.6, z), road.beside(1, 0.6, z)
        scene.put(INNER, z, partial(furniture.gantry, stream=stream.child(), left=left, right=right, z=z))
    if road.zebra is not None or road.crossing:
        begin = road.zebra if road.zebra is not None else road.crossing[0] - 2 if road.crossing else 0.0
        for _ in range(stream.whole(0, 4)):
            z = begin + stream.uniform(0.3, 2.8)
            x = road.bent(stream.uniform(road.left, road.right), z)
            if z > 5:
                scene.put(INNER, z, partial(person, stream=stream.child(), x=x, z=z))

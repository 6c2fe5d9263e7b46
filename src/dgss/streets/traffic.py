"""What moves and parks on the road: lanes, parking lanes, trams, crossing traffic, two-wheelers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dgss.streets.cycles import two_wheeler
from dgss.streets.kinds import Label
from dgss.streets.noise import Stream
from dgss.streets.scene import INNER, Scene
from dgss.streets.solids import Frame, standing
from dgss.streets.transit import bus, tram, truck
from dgss.streets.vehicles import BODIES, car

_TRAFFIC_END = 110.0  # metres
_PARKED_END = 75.0
_MOVING = (
    ("car",) * 12
    + ("suv",) * 6
    + ("van",) * 2
    + ("truck", "truck", "bus", "motorcycle", "motorcycle", "bicycle", "bicycle")
)
_PARKED = ("truck",) + ("car",) * 9 + ("suv",) * 3 + ("van",) * 2
_CROSSING = ("car",) * 4 + ("suv", "van", "truck", "bus", "tram")
_PLAIN_CARS = ("sedan", "hatchback", "hatchback", "estate")
_CYCLES = {"motorcycle": Label.MOTORCYCLE, "bicycle": Label.BICYCLE}
_LENGTHS = {"truck": (6.0, 9.0), "bus": (10.0, 13.0), "tram": (18.0, 32.0)}  # metres
_LONG: dict[str, Callable[..., None]] = {"truck": truck, "bus": bus, "tram": tram}


def add_traffic(scene: Scene, stream: Stream) -> None:
    """Fills the road of a scene."""
    road = scene.road
    tram_lane = stream.whole(0, road.lanes - 1) if stream.chance(0.12) else -1
    for lane in range(road.lanes):
        _fill_lane(scene, stream, lane, lane == tram_lane and lane != road.ego)
    for side, parking in zip((-1, 1), road.parking, strict=True):
        if parking:
            _park(scene, stream, side)
        _park_cycles(scene, stream, side)
    for _ in range(stream.whole(0, 3)):
        _loose_cycle(scene, stream)
    if road.crossing and stream.chance(0.75):
        _cross(scene, stream, road.crossing)


def _vehicle(scene: Scene, stream: Stream, kind: str, frame_of: Callable[[float], Frame], depth: float) -> float:
    """Puts a vehicle of this kind in the scene; `frame_of` gives its frame from its length. Returns the length."""
    child = stream.child()
    if kind in _LONG:
        length = stream.uniform(*_LENGTHS[kind])
        scene.put(INNER, depth, partial(_LONG[kind], stream=child, frame=frame_of(length), length=length))
        return length
    body = BODIES[stream.pick(_PLAIN_CARS) if kind == "car" else kind]
    scene.put(INNER, depth, partial(car, stream=child, body=body, frame=frame_of(body.length)))
    return body.length


def _fill_lane(scene: Scene, stream: Stream, lane: int, has_tram: bool) -> None:
    """Vehicles of one lane, from near to far."""
    road = scene.road
    middle = road.bound(lane) + road.lane_width / 2
    oncoming = road.oncoming(lane)
    density = stream.uniform(0.3, 1.5)
    z = stream.uniform(5, 30) + (4.0 if lane == road.ego else 0.0)
    while z < _TRAFFIC_END:
        kind = "tram" if has_tram else stream.pick(_MOVING)
        has_tram = False
        x = road.bent(middle + stream.uniform(-0.25, 0.25), z)
        if kind in _CYCLES:
            shift = 0.25 * road.lane_width * (-1 if oncoming else 1)
            draw = partial(two_wheeler, stream=stream.child(), x=x + shift, z=z, label=_CYCLES[kind])
            scene.put(INNER, z, partial(draw, facing=0, ridden=True, towards=oncoming))
            length = 2.0
        else:
            turn = 2 * road.bend * z
            frame_of = partial(standing, x, z, heading=-turn if oncoming else turn, oncoming=oncoming)
            length = _vehicle(scene, stream, kind, frame_of, z)
        z += length + 12 + stream.uniform(8, 45) * density


def _park(scene: Scene, stream: Stream, side: int) -> None:
    """A row of parked vehicles along one kerb."""
    road = scene.road
    z = stream.uniform(1, 9)
    while z < _PARKED_END:
        slot = stream.uniform(5.4, 8.0)
        kind = stream.pick(_PARKED)
        free = road.crossing is None or not road.crossing[0] - 9 < z < road.crossing[1] + 2
        if stream.chance(0.8) and free:
            x = road.beside(side, -1.12 - stream.uniform(0, 0.2), z)
            heading = stream.uniform(-0.04, 0.04) + 2 * road.bend * z
            oncoming = side < 0 if stream.chance(0.85) else side > 0
            frame_of = partial(standing, x, z, heading=-heading if oncoming else heading, oncoming=oncoming)
            length = _vehicle(scene, stream, kind, frame_of, z)
            slot = max(slot, length + 0.8)
        z += slot


def _park_cycles(scene: Scene, stream: Stream, side: int) -> None:
    """Bicycles and motorcycles parked on the sidewalk."""
    road = scene.road
    for _ in range(stream.whole(0, 3)):
        label = Label.MOTORCYCLE if stream.chance(0.35) else Label.BICYCLE
        z = 5 + 30 * stream.uniform() ** 1.4
        x = road.beside(side, stream.uniform(0.5, 1.2), z)
        facing = stream.pick((-1, 1, 1, 0))
        draw = partial(two_wheeler, stream=stream.child(), x=x, z=z, label=label, facing=facing, ridden=False)
        scene.put(INNER, z, draw)


def _loose_cycle(scene: Scene, stream: Stream) -> None:
    """A rider at the edge of the traffic."""
    road = scene.road
    label = Label.MOTORCYCLE if stream.chance(0.45) else Label.BICYCLE
    z = 6 + 34 * stream.uniform()
    towards = stream.chance(0.4)
    edge = road.bound(0) + 0.6 if towards else road.bound(road.lanes) - 0.6
    draw = partial(two_wheeler, stream=stream.child(), x=road.bent(edge, z), z=z, label=label)
    scene.put(INNER, z, partial(draw, facing=0, ridden=True, towards=towards))


def _cross(scene: Scene, stream: Stream, crossing: tuple[float, float]) -> None:
    """Vehicles on the crossing street, seen from the side, and now and then a rider."""
    begin, end = crossing
    for number in range(stream.whole(1, 3)):
        leftwards = stream.chance(0.5)
        kind = stream.pick(_CROSSING)
        z = begin + (0.72 if leftwards else 0.28) * (end - begin)
        x = stream.uniform(-14, 14) + 9 * number

        def frame_of(length: float, x: float = x, z: float = z, left: bool = leftwards) -> Frame:
            return Frame(x + length / 2, z, -1.0, 0.0) if left else Frame(x - length / 2, z, 1.0, 0.0)

        _vehicle(scene, stream, kind, frame_of, z - 0.9)
    if stream.chance(0.5):
        z = begin + 0.1 * (end - begin)
        label = Label.BICYCLE if stream.chance(0.65) else Label.MOTORCYCLE
        facing = stream.pick((-1, 1))
        x = stream.uniform(-6, 6)
        draw = partial(two_wheeler, stream=stream.child(), x=x, z=z, label=label, facing=facing, ridden=True)
        scene.put(INNER, z, draw)

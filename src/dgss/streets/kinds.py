"""The classes of a drawn street and the materials its surfaces are made of."""

from __future__ import annotations

from enum import IntEnum

Colour = tuple[float, float, float]
"""Linear-light RGB, 0 to 1."""


class Label(IntEnum):
    """The 19 classes by their train ids."""

    ROAD = 0
    SIDEWALK = 1
    BUILDING = 2
    WALL = 3
    FENCE = 4
    POLE = 5
    TRAFFIC_LIGHT = 6
    TRAFFIC_SIGN = 7
    VEGETATION = 8
    TERRAIN = 9
    SKY = 10
    PERSON = 11
    RIDER = 12
    CAR = 13
    TRUCK = 14
    BUS = 15
    TRAIN = 16
    MOTORCYCLE = 17
    BICYCLE = 18


class Material(IntEnum):
    """How a surface is shaded; the four numbers q of a primitive mean what stands here.

    FACADE: storey height, bay width, style, window share. STONE: brick length, brick height. BARS: period, height,
    kind (0 bars, 1 planks, 2 mesh). LEAF: crown radius. TWIGS: crown radius, density. PAINT, GLASS: height of the
    vehicle. METAL: half width of a round post, else 0. CLOTH: half width of the limb. LAMP: strength of its own light
    by day, kind (see `Glow`). SLABS: edge, difference in tint. Lengths in metres.
    """

    SKY = 0
    ASPHALT = 1
    SLABS = 2
    GRASS = 3
    FACADE = 4
    STONE = 5
    BARS = 6
    LEAF = 7
    PAINT = 8
    GLASS = 9
    CLOTH = 10
    ROOF = 11
    METAL = 12
    LAMP = 13
    TWIGS = 14


GROUND = (Material.ASPHALT, Material.SLABS, Material.GRASS)
"""What one walks and drives on."""


class Glow(IntEnum):
    """What a lamp is, so that the night can light it."""

    NONE = 0
    HEAD = 1
    TAIL = 2
    STREET = 3
    SIGNAL = 4

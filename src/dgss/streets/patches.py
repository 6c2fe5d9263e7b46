"""The pixels of one material, as a shader sees them, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dgss.streets.gbuffer import GBuffer, Table
from dgss.streets.kinds import Material
from dgss.streets.light import Light
from dgss.streets.noise import Floats, Indices
from dgss.streets.road import Road

LOWEST_VEHICLE = 0.9
"""Metres; parts that name no height of their vehicle are shaded as of one this high."""


@dataclass(frozen=True)
class Patch:
    """The pixels of one material, n of them. All (n,) but colour (3, n) and q (4, n)."""

    index: Indices
    numbers: Indices
    u: Floats
    v: Floats
    y: Floats
    depth: Floats
    footprint: Floats
    colour: Floats
    q: Floats
    table: Table
    road: Road
    light: Light

    def fade(self, width: float) -> Floats:
        """1 where a detail of this width in metres is seen, towards 0 where it is smaller than a pixel."""
        seen: Floats = np.minimum(np.float32(0.5 * width) / self.footprint, np.float32(1))
        return seen


@dataclass
class Surface:
    """What a material answers: albedo (3, n); gloss (n,), the part of the sky it mirrors; emission (3, n)."""

    albedo: Floats
    gloss: Floats | None = None
    emission: Floats | None = None


def patch_of(buffer: GBuffer, material: Material, light: Light) -> Patch:
    """The pixels of one material."""
    index = buffer.pixels[material]
    numbers = buffer.numbers.take(index)
    table = buffer.table
    return Patch(
        index=index,
        numbers=numbers,
        u=buffer.u.take(index),
        v=buffer.v.take(index),
        y=buffer.y.take(index),
        depth=buffer.depth.take(index),
        footprint=buffer.footprint.take(index),
        colour=table.colour.take(numbers, axis=1),
        q=table.q.take(numbers, axis=1),
        table=table,
        road=buffer.road,
        light=light,
    )

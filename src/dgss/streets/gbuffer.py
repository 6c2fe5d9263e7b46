"""What is seen at each buffer pixel: depth, place on the surface, material, all looked up by primitive number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgss.streets.gaps import GAPS, OpenPixels
from dgss.streets.kinds import GROUND, Material
from dgss.streets.noise import Floats, Indices
from dgss.streets.raster import Camera, Canvas, Row
from dgss.streets.road import BEND_END, Road

_NEAREST, _FARTHEST = 0.6, 400.0  # metres


class Table:
    """The rows of all primitives as columns, one entry per primitive number (P).

    inverse, normal, colour: (3, P); origin: (2, P); q: (4, P); u_along_z, v_along_z: (P,) 1 where the texture runs
    along Z, else 0.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.label: NDArray[np.uint8] = np.array([row.label for row in rows], np.uint8)
        self.instance: NDArray[np.uint16] = np.array([row.instance for row in rows], np.uint16)
        self.material: NDArray[np.uint8] = np.array([row.material for row in rows], np.uint8)
        self.inverse = _columns([row.inverse for row in rows])
        self.normal = _columns([row.normal for row in rows])
        self.origin = _columns([row.origin for row in rows])
        self.colour = _columns([row.colour for row in rows])
        self.q = _columns([row.q for row in rows])
        upright = np.abs(self.normal[1]) < 0.9
        self.v_along_z = (~upright).astype(np.float32)
        self.u_along_z = (upright & (np.abs(self.normal[0]) > np.abs(self.normal[2]))).astype(np.float32)


@dataclass
class GBuffer:
    """Every pixel of the buffer, H x W, flattened to N = H * W.

    labels, instances: (H, W), gaps closed. numbers: (N,) primitive seen, through the gaps of fences and crowns.
    depth, x, y, u, v: (N,) metres; x and y in the world, u and v on the surface. footprint: (N,) metres that a pixel
    covers. shadow, contact: (H, W) masks on the ground. pixels: indices into N by material.
    """

    camera: Camera
    road: Road
    table: Table
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    numbers: Indices
    depth: Floats
    x: Floats
    y: Floats
    u: Floats
    v: Floats
    footprint: Floats
    shadow: NDArray[np.uint8]
    contact: NDArray[np.uint8]
    pixels: dict[Material, Indices]


def look_up(canvas: Canvas, road: Road) -> GBuffer:
    """Reads the filled canvas through its table."""
    table = Table(canvas.rows)
    solid = canvas.numbers.astype(np.intp)
    seen = _see_through(canvas, road, table, solid)
    depth, x, y, u, v = _places(canvas.camera, road, table, seen)
    numbers = seen.ravel()
    material = table.material.take(numbers)
    return GBuffer(
        camera=canvas.camera,
        road=road,
        table=table,
        labels=table.label.take(solid),
        instances=table.instance.take(solid),
        numbers=numbers,
        depth=depth.ravel(),
        x=x.ravel(),
        y=y.ravel(),
        u=u.ravel(),
        v=v.ravel(),
        footprint=depth.ravel() / np.float32(canvas.camera.focal),
        shadow=canvas.shadow,
        contact=canvas.contact,
        pixels=_by_material(material),
    )


def _see_through(canvas: Canvas, road: Road, table: Table, solid: Indices) -> Indices:
    """Primitive numbers with gaps replaced by what stands behind them."""
    material = table.material.take(solid.ravel())
    openings = {kind: np.flatnonzero(material == kind) for kind in GAPS if kind in table.material}
    if not any(len(at) for at in openings.values()):
        return solid
    depth, _, _, u, v = (values.ravel() for values in _places(canvas.camera, road, table, solid))
    seen = solid.copy()
    for kind, at in openings.items():
        numbers = solid.ravel()[at]
        slope, q = table.inverse[0].take(numbers), table.q[:, numbers]
        pixels = OpenPixels(u[at], v[at], depth[at], slope, q, at, numbers, canvas.camera.focal)
        open_pixels = at[GAPS[kind](pixels)]
        seen.ravel()[open_pixels] = canvas.behind.ravel()[open_pixels]
    return seen


def _places(
    camera: Camera, road: Road, table: Table, numbers: Indices
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Depth, world x and y, surface u and v of every pixel, each (H, W)."""
    across = (np.arange(camera.width, dtype=np.float32) - np.float32(camera.centre))[None, :]
    down = (np.arange(camera.height, dtype=np.float32) - np.float32(camera.horizon))[:, None]
    inverse = table.inverse[0].take(numbers) * across
    inverse += table.inverse[1].take(numbers) * down
    inverse += table.inverse[2].take(numbers)
    np.clip(inverse, 1 / _FARTHEST, 1 / _NEAREST, out=inverse)
    depth = 1 / inverse
    scale = depth / np.float32(camera.focal)
    x = across * scale
    y = np.float32(camera.level) - down * scale
    flat = table.v_along_z.take(numbers)
    u = x + table.u_along_z.take(numbers) * (depth - x) - table.origin[0].take(numbers)
    v = y + flat * (depth - y) - table.origin[1].take(numbers)
    if road.bend:
        ground = _is_ground(table).take(numbers)
        u -= ground * np.float32(road.bend) * np.minimum(depth, np.float32(BEND_END)) ** 2
    return depth, x, y, u, v


def _is_ground(table: Table) -> Floats:
    return np.isin(table.material, np.array(GROUND, np.uint8)).astype(np.float32)


def _by_material(material: NDArray[np.uint8]) -> dict[Material, Indices]:
    """Pixel indices of each material that is seen, in rising order."""
    order = np.argsort(material, kind="stable")
    bounds = np.searchsorted(material[order], np.arange(len(Material) + 1))
    return {kind: order[bounds[kind] : bounds[kind + 1]] for kind in Material if bounds[kind + 1] > bounds[kind]}


def _columns(values: list[tuple[float, ...]]) -> Floats:
    return np.ascontiguousarray(np.array(values, np.float32).T)

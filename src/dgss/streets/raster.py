"""The primitive buffer: polygons of the street, filled far to near with their number, and a table that explains them.

World: X right, Y up, Z forward, metres; the camera stands at (0, h, 0) and looks along +Z. Every primitive is flat, so
one over its depth is linear in the pixel: 1/Z = A (x - cx) + B (y - yh) + C. The table keeps A, B and C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from dgss.streets.gaps import GAPS
from dgss.streets.kinds import Colour, Label, Material
from dgss.streets.palettes import Palette

Point2 = tuple[float, float]
Point3 = tuple[float, float, float]
Corner = TypeVar("Corner", bound=tuple[float, ...])

NEAR = 0.8
"""Depth in metres in front of which nothing is drawn."""
THINNEST = 1.2
"""Least width of a line in buffer pixels, so that far posts do not vanish."""
_SUBPIXEL_BITS = 4
_SUBPIXEL = 1 << _SUBPIXEL_BITS
_MARGIN = 3.0  # polygons are cut this many image widths outside the image: larger numbers overflow the filling
_LONGEST_SHADOW = 6.0  # metres of shadow per metre of height
_LOWEST_SUN = 0.25
_MOST_PRIMITIVES = 1 << 16
_CONTACT = 0.15  # metres by which the dark patch under a thing is larger than the thing


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from. Sizes in buffer pixels, `level` in metres above ground."""

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    level: float

    def scale(self, z: float) -> float:
        """Buffer pixels per metre at depth z."""
        return self.focal / max(z, NEAR)


class Row(NamedTuple):
    """One primitive of the table."""

    label: int
    instance: int
    material: int
    inverse: Point3
    normal: Point3
    origin: Point2
    colour: Colour
    q: tuple[float, float, float, float]


class Canvas:
    """What objects draw on. Numbers of primitives (H, W) int32; masks of shadows (H, W) uint8 on the ground."""

    def __init__(self, camera: Camera, palette: Palette, sun: Point3) -> None:
        self.camera = camera
        self.palette = palette
        self.sun = sun
        shape = (camera.height, camera.width)
        self.numbers: NDArray[np.int32] = np.zeros(shape, np.int32)
        self.behind: NDArray[np.int32] = np.zeros(shape, np.int32)
        self.shadow: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.contact: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.rows: list[Row] = []
        self._things = 0
        self._open: NDArray[np.bool_] = np.zeros(_MOST_PRIMITIVES, np.bool_)

    def brush(self, label: Label, thing: bool = False) -> Brush:
        """A brush for one class; each call with `thing` starts a new instance."""
        if thing:
            self._things += 1
        return Brush(self, label, self._things if thing else 0)

    def add(self, row: Row) -> int:
        """Enters a primitive in the table and returns its number."""
        self.rows.append(row)
        return len(self.rows) - 1

    def fill(self, contours: Sequence[Sequence[Point2]], row: Row) -> None:
        """Fills a polygon, given in buffer pixels; a second contour is a hole. Nothing happens outside the image."""
        width, height = self.camera.width, self.camera.height
        outline = contours[0]
        xs = [point[0] for point in outline]
        ys = [point[1] for point in outline]
        if max(xs) < 0 or min(xs) > width or max(ys) < 0 or min(ys) > height:
            return
        reach = _MARGIN * width
        if min(xs) < -reach or max(xs) > reach + width or min(ys) < -reach or max(ys) > reach + height:
            contours = [_to_reach(contour, width, height, reach) for contour in contours]
        if any(len(contour) < 3 for contour in contours):
            return
        number = self.add(row)
        pixels = [
            np.array([(round(x * _SUBPIXEL), round(y * _SUBPIXEL)) for x, y in contour], np.int32)
            for contour in contours
        ]
        if row.material in GAPS:
            self._fill_open(pixels, number)
        else:
            cv2.fillPoly(self.numbers, pixels, number, cv2.LINE_8, _SUBPIXEL_BITS)

    def _fill_open(self, pixels: list[NDArray[np.int32]], number: int) -> None:
        """Keeps what stood behind the gaps; behind a second open surface that is still what stood behind the first."""
        outline = pixels[0] >> _SUBPIXEL_BITS
        left, top = np.maximum(outline.min(axis=0) - 1, 0)
        right, bottom = outline.max(axis=0) + 3
        place = (slice(top, bottom), slice(left, right))
        before = self.numbers[place].copy()
        cv2.fillPoly(self.numbers, pixels, number, cv2.LINE_8, _SUBPIXEL_BITS)
        fresh = self.numbers[place] == number
        fresh &= ~self._open[before]
        np.copyto(self.behind[place], before, where=fresh)
        self._open[number] = True

    def ground_point(self, x: float, z: float) -> Point2:
        """Where a point of the ground is seen, in buffer pixels."""
        scale = self.camera.focal / z
        return self.camera.centre + x * scale, self.camera.horizon + self.camera.level * scale

    def cast(self, footprint: Sequence[Point2], height: float, base: float = 0.0) -> None:
        """The shadow of an upright body: its footprint [(x, z)], joined with itself as the sun throws it."""
        tops = [self._thrown(x, z, height) for x, z in footprint]
        bottoms = [self._thrown(x, z, base) for x, z in footprint] if base else list(footprint)
        hull = cv2.convexHull(np.array(bottoms + tops, np.float32))[:, 0]
        self._fill_ground(self.shadow, [(float(x), float(z)) for x, z in hull])

    def touch(self, footprint: Sequence[Point2]) -> None:
        """The dark patch where a body meets the ground, whatever the weather."""
        centre_x = sum(x for x, _ in footprint) / len(footprint)
        centre_z = sum(z for _, z in footprint) / len(footprint)
        grown = [(x + _push(x - centre_x), z + _push(z - centre_z)) for x, z in footprint]
        self._fill_ground(self.contact, grown)

    def _thrown(self, x: float, z: float, height: float) -> Point2:
        """Where the sun throws the shadow of a point at this height."""
        reach = min(height / max(self.sun[1], _LOWEST_SUN), _LONGEST_SHADOW * height)
        return x - reach * self.sun[0], z - reach * self.sun[2]

    def _fill_ground(self, mask: NDArray[np.uint8], outline: list[Point2]) -> None:
        clipped = clip(outline, 1, NEAR, 1.0)
        if len(clipped) < 3:
            return
        seen: list[Point2] = [self.ground_point(x, z) for x, z in clipped]
        width, height = self.camera.width, self.camera.height
        seen = _to_reach(seen, width, height, _MARGIN * width)
        if len(seen) >= 3:
            pixels = np.array([(round(x * _SUBPIXEL), round(y * _SUBPIXEL)) for x, y in seen], np.int32)
            cv2.fillPoly(mask, [pixels], 255, cv2.LINE_8, _SUBPIXEL_BITS)


@dataclass(frozen=True)
class Brush:
    """Fills the polygons of one thing: its class and its instance."""

    canvas: Canvas
    label: Label
    instance: int

    def front(
        self,
        z: float,
        outline: Sequence[Point2],
        material: Material,
        colour: Colour,
        q: Sequence[float] = (),
        origin: Point2 = (0.0, 0.0),
        hole: Sequence[Point2] = (),
    ) -> None:
        """A polygon [(x, y)] in metres that faces the camera at depth z."""
        if z < NEAR:
            return
        camera = self.canvas.camera
        scale = camera.focal / z
        base = camera.horizon + camera.level * scale
        contours = [
            [(camera.centre + x * scale, base - y * scale) for x, y in contour]
            for contour in (outline, hole)
            if contour
        ]
        self.canvas.fill(contours, self._row(material, (0.0, 0.0, 1 / z), (0.0, 0.0, -1.0), origin, colour, q))

    def face(
        self,
        corners: Sequence[Point3],
        material: Material,
        colour: Colour,
        q: Sequence[float] = (),
        origin: Point2 = (0.0, 0.0),
        solid: bool = False,
    ) -> None:
        """A flat polygon [(x, y, z)] anywhere; of a solid (corners clockwise seen from outside) only what is seen."""
        camera = self.canvas.camera
        normal = _normal(corners)
        x, y, z = corners[0]
        distance = normal[0] * x + normal[1] * (y - camera.level) + normal[2] * z
        if abs(distance) < 1e-6 or (solid and distance > 0):
            return
        if min(corner[2] for corner in corners) < NEAR:
            corners = clip(corners, 2, NEAR, 1.0)
            if len(corners) < 3:
                return
        seen = []
        for x, y, z in corners:
            scale = camera.focal / z
            seen.append((camera.centre + x * scale, camera.horizon + (camera.level - y) * scale))
        slope = 1 / (distance * camera.focal)
        inverse = (normal[0] * slope, -normal[1] * slope, normal[2] / distance)
        if distance > 0:
            normal = (-normal[0], -normal[1], -normal[2])
        self.canvas.fill([seen], self._row(material, inverse, normal, origin, colour, q))

    def line(self, z: float, start: Point2, end: Point2, width: float, material: Material, colour: Colour) -> None:
        """A bar from one point (x, y) to another in the plane at depth z; an upright one is shaded round."""
        if z < NEAR:
            return
        half = max(width, THINNEST / self.canvas.camera.scale(z)) / 2
        across_x, across_y = end[1] - start[1], start[0] - end[0]
        length = sqrt(across_x * across_x + across_y * across_y) or 1.0
        dx, dy = half * across_x / length, half * across_y / length
        outline = [
            (start[0] - dx, start[1] - dy),
            (end[0] - dx, end[1] - dy),
            (end[0] + dx, end[1] + dy),
            (start[0] + dx, start[1] + dy),
        ]
        upright = abs(end[0] - start[0]) < 0.3 * abs(end[1] - start[1])
        middle = (start[0] + end[0]) / 2
        self.front(z, outline, material, colour, (half if upright else 0.0,), (middle, 0.0))

    def _row(
        self,
        material: Material,
        inverse: Point3,
        normal: Point3,
        origin: Point2,
        colour: Colour,
        q: Sequence[float],
    ) -> Row:
        padded = (*q, 0.0, 0.0, 0.0, 0.0)
        return Row(
            self.label,
            self.instance,
            material,
            inverse,
            normal,
            origin,
            colour,
            (padded[0], padded[1], padded[2], padded[3]),
        )


def clip(points: Sequence[Corner], axis: int, bound: float, sign: float) -> list[Corner]:
    """A polygon cut to where sign * coordinate[axis] is at least sign * bound."""
    kept: list[Corner] = []
    before = points[-1]
    before_in = sign * (before[axis] - bound) >= 0
    for point in points:
        inside = sign * (point[axis] - bound) >= 0
        if inside != before_in:
            part = (bound - before[axis]) / (point[axis] - before[axis])
            met = tuple(b + part * (p - b) for b, p in zip(before, point, strict=True))
            kept.append(cast(Corner, met))
        if inside:
            kept.append(point)
        before, before_in = point, inside
    return kept


def _to_reach(points: Sequence[Point2], width: int, height: int, reach: float) -> list[Point2]:
    """A polygon in pixels cut to the image and `reach` around it."""
    kept = list(points)
    for axis, bound, sign in ((0, -reach, 1.0), (0, width + reach, -1.0), (1, -reach, 1.0), (1, height + reach, -1.0)):
        if len(kept) >= 3:
            kept = clip(kept, axis, bound, sign)
    return kept


def _normal(corners: Sequence[Point3]) -> Point3:
    """The unit normal of a flat polygon, towards the side from which its corners run clockwise."""
    nx = ny = nz = 0.0
    ax, ay, az = corners[-1]
    for bx, by, bz in corners:
        nx += (ay - by) * (az + bz)
        ny += (az - bz) * (ax + bx)
        nz += (ax - bx) * (ay + by)
        ax, ay, az = bx, by, bz
    length = sqrt(nx * nx + ny * ny + nz * nz) or 1.0
    return nx / length, ny / length, nz / length


def _push(offset: float) -> float:
    return _CONTACT if offset > 0 else -_CONTACT

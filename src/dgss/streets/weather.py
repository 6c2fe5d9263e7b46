"""Rain and snow."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dgss.streets.kinds import GROUND, Material
from dgss.streets.lens import blurred
from dgss.streets.noise import FBM, LEAFY, Floats, Indices, noise
from dgss.streets.patches import LOWEST_VEHICLE
from dgss.streets.shading import Shot

_WET = 0.72  # brightness of wet ground
_SNOW = (0.84, 0.87, 0.92)
_SUBPIXEL_BITS = 4
_MIRROR_BLUR = (3, 13)  # pixels across and down of a picture 256 wide


def wet_ground(shot: Shot) -> None:
    """Water makes the ground darker."""
    for material in GROUND:
        if material in shot.buffer.pixels:
            shot.albedo[:, shot.buffer.pixels[material]] *= np.float32(_WET)


def mirror_ground(shot: Shot) -> None:
    """The wet ground mirrors what stands beyond it, most where it is seen flat, in puddles."""
    buffer, camera = shot.buffer, shot.buffer.camera
    ground = shot.at_image(np.isin(buffer.table.material, GROUND).take(buffer.numbers))
    height, width = ground.shape
    horizon = np.float32(camera.horizon / 2)
    rows = np.arange(height, dtype=np.float32)[:, None]
    foot = np.maximum.accumulate(np.where(ground, np.float32(0), rows), axis=0)
    u, v = shot.at_image(buffer.u), shot.at_image(buffer.v)
    ripple = noise(FBM, u / 3, v / 5)
    source_row = np.clip(2 * foot - rows + 3 * np.float32(shot.unit) * ripple, 0, height - 1).astype(np.float32)
    below = np.maximum(rows - horizon, 0)
    columns = np.arange(width, dtype=np.float32)[None, :]
    source_column = (columns + 2.5 * ripple * np.clip(below / (40 * shot.unit), 0, 2)).astype(np.float32)
    size = tuple(int(edge * shot.unit) | 1 for edge in _MIRROR_BLUR)
    mirrored = cv2.remap(cv2.blur(shot.image, size), source_column, source_row, cv2.INTER_LINEAR)
    flat = np.clip(1 - below / np.maximum(height - horizon, 1), 0, 1) ** 1.5
    puddles = np.clip(0.55 + 0.9 * noise(FBM, u / 7, v / 12), 0.15, 1)
    weight = ((0.2 + 0.55 * flat) * puddles * ground)[..., None]
    shot.image += weight * (mirrored - shot.image)


def rain_streaks(shot: Shot) -> None:
    """Falling drops, all with one slant."""
    stream, (height, width) = shot.stream, shot.image.shape[:2]
    slant = stream.uniform(-0.35, 0.35)
    count = stream.whole(120, 320)
    draws = stream.many(3 * count).reshape(count, 3)
    start = draws[:, :2] * (width, height)
    length = (4 + 12 * draws[:, 2]) * shot.unit
    ends = start + np.stack([slant * length, length], axis=1)
    mask = _lines(start, ends, (height, width), max(1, round(0.6 * shot.unit)))
    shot.image += np.float32(0.2) * mask[..., None] * (np.float32(0.85) - shot.image)


def _lines(starts: Floats, ends: Floats, size: tuple[int, int], thickness: int) -> Floats:
    """Thin lines as a mask (H, W), 0 to 1."""
    mask: NDArray[np.uint8] = np.zeros(size, np.uint8)
    pixels = np.rint(np.stack([starts, ends], axis=1) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(mask, list(pixels), False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask.astype(np.float32) * np.float32(1 / 255)


def lens_drops(shot: Shot) -> None:
    """Half of the time drops on the lens, each showing the scene upside down."""
    stream = shot.stream
    if not stream.chance(0.5):
        return
    height, width = shot.image.shape[:2]
    turned = blurred(shot.image, 3 * shot.unit)[::-1]
    for _ in range(stream.whole(4, 15)):
        x, y = stream.uniform(0, width), stream.uniform(0, height)
        radius = stream.uniform(2.5, 7) * shot.unit
        left, right = max(0, int(x - radius)), min(width, int(x + radius) + 1)
        top, bottom = max(0, int(y - radius)), min(height, int(y + radius) + 1)
        across = (np.arange(left, right, dtype=np.float32) - np.float32(x)) / np.float32(radius)
        down = (np.arange(top, bottom, dtype=np.float32) - np.float32(y)) / np.float32(radius)
        inside = np.clip(3 * (1 - (across * across)[None, :] - (down * down)[:, None]), 0, 0.75)[..., None]
        part = shot.image[top:bottom, left:right]
        part += inside * (turned[top:bottom, left:right] * np.float32(1.08) - part)


def _on_asphalt(shot: Shot, at: Indices) -> Floats:
    """Snow between the tyre tracks."""
    u, v, road = shot.buffer.u.take(at), shot.buffer.v.take(at), shot.buffer.road
    lane = (u - np.float32(road.bound(0))) * np.float32(4 * np.pi / road.lane_width)
    cover: Floats = 0.25 + 0.9 * noise(FBM, u / 9, v / 14) + 0.5 * np.cos(lane)
    return cover


def _on_slabs(shot: Shot, at: Indices) -> Floats:
    return 0.8 + 0.8 * noise(FBM, shot.buffer.u.take(at) / 6, shot.buffer.v.take(at) / 6)


def _on_grass(shot: Shot, at: Indices) -> Floats:
    return 0.95 + 0.6 * noise(FBM, shot.buffer.u.take(at) / 6, shot.buffer.v.take(at) / 6)


def _on_leaves(shot: Shot, at: Indices) -> Floats:
    """More on the upper side of a crown, in clumps."""
    buffer = shot.buffer
    radius = np.maximum(buffer.table.q[0].take(buffer.numbers.take(at)), np.float32(0.3))
    up = buffer.v.take(at) / radius
    cover: Floats = 0.1 + 0.55 * up + 0.9 * noise(LEAFY, buffer.u.take(at) / 3, buffer.v.take(at) / 3)
    return cover


def _on_tops(shot: Shot, at: Indices) -> Floats:
    """On what looks up: roofs, bonnets, copings."""
    up = shot.buffer.table.normal[1].take(shot.buffer.numbers.take(at))
    cover: Floats = np.clip(up - 0.25, 0, 1) * 2
    return cover


def _on_vehicles(shot: Shot, at: Indices) -> Floats:
    """On roofs and bonnets, and a rim along the top."""
    buffer = shot.buffer
    numbers = buffer.numbers.take(at)
    part = buffer.y.take(at) / np.maximum(buffer.table.q[0].take(numbers), np.float32(LOWEST_VEHICLE))
    cover: Floats = _on_tops(shot, at) + np.clip((part - 0.9) * 8, 0, 0.8)
    return cover


_COVERS: dict[Material, Callable[[Shot, Indices], Floats]] = {
    Material.ASPHALT: _on_asphalt,
    Material.SLABS: _on_slabs,
    Material.GRASS: _on_grass,
    Material.LEAF: _on_leaves,
    Material.TWIGS: _on_leaves,
    Material.ROOF: lambda shot, at: np.full(len(at), 0.95, np.float32),
    Material.PAINT: _on_vehicles,
    Material.METAL: _on_tops,
}


def snow_cover(shot: Shot) -> None:
    """White over everything on which snow lies."""
    for material, cover_of in _COVERS.items():
        at = shot.buffer.pixels.get(material)
        if at is None:
            continue
        cover = np.clip(cover_of(shot, at), 0, 1).astype(np.float32)
        for channel, white in enumerate(_SNOW):
            plane = shot.albedo[channel]
            plane[at] += cover * (np.float32(white) - plane.take(at))


def flakes(shot: Shot) -> None:
    """Falling snow, some of it close to the lens."""
    stream, (height, width) = shot.stream, shot.image.shape[:2]
    count = stream.whole(150, 500)
    draws = stream.many(3 * count).reshape(count, 3)
    centres = np.rint(draws[:, :2] * (width, height) * 16).astype(int)
    radii = np.rint((0.3 + 1.4 * draws[:, 2] ** 4) * shot.unit * 16).astype(int)
    mask: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
    for (x, y), radius in zip(centres.tolist(), radii.tolist(), strict=True):
        cv2.circle(mask, (x, y), radius, 255, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.45 * shot.unit).astype(np.float32) * np.float32(0.85 / 255)
    shot.image += soft[..., None] * (np.float32(0.95) - shot.image)

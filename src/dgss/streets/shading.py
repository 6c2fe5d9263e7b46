"""Light, sky and haze: from the G-buffer to linear light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dgss.streets.furniture import StreetLamp
from dgss.streets.gbuffer import GBuffer, Table
from dgss.streets.kinds import GROUND, Material
from dgss.streets.light import Light
from dgss.streets.noise import BLOTCH, FBM, Floats, Indices, Stream, plane_noise
from dgss.streets.patches import patch_of
from dgss.streets.raster import Point3
from dgss.streets.surfaces import SURFACES

Scalar = TypeVar("Scalar", bound=np.generic)

_SHADOWED = 0.92  # part of the sun that a shadow takes
_CONTACT = 0.4  # part of all light that is lost close to a thing
_FOOT = 0.9  # metres above ground up to which walls are darker
_FARTHEST = 400.0  # metres of haze
_BRIGHTEST_MIRRORED = 1.2  # of the sky; brighter reflections would bleach every car
_SOFT = (Material.LEAF, Material.TWIGS, Material.CLOTH)


@dataclass
class Shot:
    """One picture in the making, from surfaces over light to what is shown.

    Buffer planes, linear: albedo, emission, total (3, N), `emission` a part of the total; gloss (N,), the part of the
    sky mirrored. image: (H, W, 3) float32, linear at first, then 0 to 1 as shown.
    """

    buffer: GBuffer
    light: Light
    sun: Point3
    lamps: list[StreetLamp]
    stream: Stream
    albedo: Floats = field(default_factory=lambda: np.zeros((3, 0), np.float32))
    emission: Floats = field(default_factory=lambda: np.zeros((3, 0), np.float32))
    gloss: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    total: Floats = field(default_factory=lambda: np.zeros((3, 0), np.float32))
    image: Floats = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))

    @property
    def unit(self) -> float:
        """How many pixels of the image a pixel of a picture 256 wide is."""
        return self.buffer.camera.width / (2 * 256)

    def at_image(self, plane: NDArray[Scalar]) -> NDArray[Scalar]:
        """A buffer plane (N,) read at the image's pixels: (H, W)."""
        camera = self.buffer.camera
        return plane.reshape(camera.height, camera.width)[::2, ::2]

    def averaged(self, planes: Floats) -> Floats:
        """Buffer planes (3, N) averaged over 2 x 2 to an image (H, W, 3)."""
        height, width = self.buffer.camera.height, self.buffer.camera.width
        half = (width // 2, height // 2)
        small = [cv2.resize(plane.reshape(height, width), half, interpolation=cv2.INTER_AREA) for plane in planes]
        return np.asarray(cv2.merge(small), np.float32)


def cover_surfaces(shot: Shot) -> None:
    """Colour, gloss and own light of every pixel's surface; the sky stays black."""
    buffer = shot.buffer
    count = len(buffer.numbers)
    shot.albedo = np.zeros((3, count), np.float32)
    shot.emission = np.zeros((3, count), np.float32)
    shot.gloss = np.zeros(count, np.float32)
    for material in buffer.pixels:
        if material == Material.SKY:
            continue
        patch = patch_of(buffer, material, shot.light)
        surface = SURFACES[material](patch)
        scatter(shot.albedo, patch.index, surface.albedo)
        if surface.gloss is not None:
            shot.gloss[patch.index] = surface.gloss
        if surface.emission is not None:
            scatter(shot.emission, patch.index, surface.emission)


def illuminate(shot: Shot) -> None:
    """Linear light of every pixel: sun, ambient, shadows, mirrored sky, own light, then air and sky."""
    buffer, light = shot.buffer, shot.light
    direct, around = _by_primitive(buffer.table, shot.sun)
    direct, around = direct.take(buffer.numbers), around.take(buffer.numbers)
    _darken(buffer, direct, around)
    sky = zip(light.sky.top, light.sky.horizon, strict=True)
    mirrored = [min(0.5 * (top + low), _BRIGHTEST_MIRRORED) for top, low in sky]
    clear = clearness(shot)
    shot.total = np.empty_like(shot.albedo)
    for channel in range(3):
        lit = direct * np.float32(light.sun[channel]) + around * np.float32(light.ambient[channel])
        lit *= shot.albedo[channel]
        lit += shot.gloss * np.float32(mirrored[channel])
        lit += shot.emission[channel]
        lit -= np.float32(light.air[channel])
        lit *= clear
        shot.total[channel] = lit + np.float32(light.air[channel])
    shot.emission *= clear
    _paint_sky(shot)


def clearness(shot: Shot) -> Floats:
    """The part of the light that the air lets through to each pixel: (N,)."""
    depth = np.minimum(shot.buffer.depth, np.float32(_FARTHEST))
    return np.asarray(np.exp(depth * np.float32(-1 / shot.light.reach)), np.float32)


def _by_primitive(table: Table, sun: Point3) -> tuple[Floats, Floats]:
    """How much sun and how much ambient light each primitive takes: (P,) each."""
    towards = table.normal[0] * sun[0] + table.normal[1] * sun[1] + table.normal[2] * sun[2]
    direct = 0.9 * np.maximum(towards, 0) + 0.1
    soft = np.isin(table.material, np.array(_SOFT, np.uint8))
    direct = np.where(soft, 0.35 + 0.4 * direct, direct)
    around = 0.78 + 0.22 * np.maximum(table.normal[1], 0) + 0.04 * np.abs(table.normal[0])
    return direct.astype(np.float32), around.astype(np.float32)


def _darken(buffer: GBuffer, direct: Floats, around: Floats) -> None:
    """Shadows on the ground, less light near the foot of walls and under things; changes both in place."""
    ground = np.concatenate([buffer.pixels[kind] for kind in GROUND if kind in buffer.pixels])
    shadow = cv2.blur(buffer.shadow, (3, 3)).ravel().take(ground) * np.float32(_SHADOWED / 255)
    width = max(3, buffer.camera.width // 100) | 1
    contact = cv2.blur(buffer.contact, (width, 3)).ravel().take(ground) * np.float32(_CONTACT / 255)
    foot = 0.7 + 0.3 * np.clip(buffer.y * np.float32(1 / _FOOT), 0, 1)
    foot[ground] = 1 - contact
    direct[ground] *= 1 - shadow
    around[ground] *= 1 - np.float32(0.25) * shadow
    direct *= foot
    around *= foot


def _paint_sky(shot: Shot) -> None:
    """The sky over the pixels that show it: gradient, clouds, and the air before them."""
    buffer, light = shot.buffer, shot.light
    at = buffer.pixels.get(Material.SKY)
    if at is None:
        return
    sky, camera = light.sky, buffer.camera
    row = (at // camera.width).astype(np.float32)
    up = np.clip(1 - row / np.float32(max(camera.horizon, 1.0)), 0, 1) ** np.float32(0.8)
    height, width = camera.height // 2, camera.width // 2
    field = plane_noise(FBM, height, width, sky.scale, sky.scale, sky.shift)
    field += 0.5 * plane_noise(BLOTCH, height, width, sky.scale, sky.scale, 0.37 + sky.shift)
    coarse = field.ravel().take((at // camera.width // 2) * width + (at % camera.width) // 2)
    cloud = np.clip((coarse + np.float32(sky.cover)) * 1.8, 0, 1)
    cloud = cloud * cloud * (3 - 2 * cloud)
    lit = 0.85 + 0.15 * np.clip(coarse * 1.5, -1, 1)
    for channel in range(3):
        clear = sky.horizon[channel] + (sky.top[channel] - sky.horizon[channel]) * up
        value = clear + cloud * (sky.cloud[channel] * lit - clear)
        shot.total[channel, at] = value + np.float32(sky.drowned) * (np.float32(light.air[channel]) - value)


def scatter(target: Floats, index: Indices, values: Floats) -> None:
    """Writes planes (3, n) into planes (3, N) at an index (n,)."""
    for channel in range(3):
        target[channel, index] = values[channel]

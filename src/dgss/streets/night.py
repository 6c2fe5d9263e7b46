"""Night: street lamps, headlights, glowing lights."""

from __future__ import annotations

import numpy as np

from dgss.streets.kinds import Colour, Glow, Material
from dgss.streets.lens import wide_blur
from dgss.streets.noise import Floats
from dgss.streets.shading import Shot, clearness

_SODIUM: Colour = (1.0, 0.62, 0.25)
_COLD: Colour = (0.8, 0.9, 1.0)
_NEAREST_LAMPS = 10
_LAMP_POWER = 20.0
_ABOVE = 0.15  # part of a lamp's light that goes upwards
_HEADLIGHT = 0.9
_GLOW_SIZE = 0.6  # metres
_GLOW_NEAR = 8.0  # metres; nearer lights glow no larger
_GLOWS: dict[int, tuple[Colour, float]] = {  # colour and strength of the halo around a visible light
    Glow.HEAD: ((1.0, 0.95, 0.8), 0.9),
    Glow.TAIL: ((0.9, 0.06, 0.04), 0.55),
    Glow.STREET: ((1.0, 0.8, 0.5), 0.6),
    Glow.SIGNAL: ((0.6, 0.6, 0.4), 0.12),
}


def shine(shot: Shot) -> None:
    """The light of street lamps and of the camera's own headlights on everything."""
    colour = _SODIUM if shot.stream.chance(0.6) else _COLD
    added = _street_lamps(shot)
    own = _own_headlights(shot)
    clear = clearness(shot)
    for channel in range(3):
        shot.total[channel] += shot.albedo[channel] * clear * (added * np.float32(colour[channel]) + own)


def _street_lamps(shot: Shot) -> Floats:
    """Light of the nearest lamps on every pixel: (N,)."""
    buffer = shot.buffer
    total = np.zeros_like(buffer.depth)
    for lamp in sorted(shot.lamps, key=lambda lamp: lamp.z)[:_NEAREST_LAMPS]:
        squared = (buffer.x - np.float32(lamp.x)) ** 2
        squared += (buffer.depth - np.float32(lamp.z)) ** 2
        squared += (buffer.y - np.float32(lamp.y)) ** 2
        below = np.clip((np.float32(lamp.y + 0.5) - buffer.y) * 2, _ABOVE, 1)
        total += below * np.float32(_LAMP_POWER) / (20 + 1.6 * squared)
    return total


def _own_headlights(shot: Shot) -> Floats:
    """Light of the camera's car: (N,), strong on the road ahead."""
    buffer, camera = shot.buffer, shot.buffer.camera
    across = (np.arange(camera.width, dtype=np.float32) - np.float32(camera.centre)) / np.float32(0.36 * camera.width)
    beam = np.tile(np.exp(-across * across), camera.height)
    low = np.clip(1 - buffer.y / 3.2, 0, 1)
    return np.asarray(_HEADLIGHT * beam * low / (1 + (buffer.depth / 13) ** 2), np.float32)


def bloom(shot: Shot) -> None:
    """Own light spreads in the lens; visible lamps wear halos."""
    emission = np.minimum(shot.averaged(shot.emission), np.float32(3))
    shot.image += 0.35 * wide_blur(emission, 3 * shot.unit) + 0.3 * wide_blur(emission, 9 * shot.unit)
    for colour, strength, x, y, radius in _visible_lamps(shot):
        _add_halo(shot.image, (x, y), radius, np.array(colour, np.float32) * np.float32(strength))


def _visible_lamps(shot: Shot) -> list[tuple[Colour, float, float, float, float]]:
    """Halos: colour, strength, centre and radius in image pixels."""
    buffer, camera = shot.buffer, shot.buffer.camera
    at = buffer.pixels.get(Material.LAMP)
    if at is None:
        return []
    numbers = buffer.numbers.take(at)
    halos = []
    for number in np.unique(numbers):
        kind = int(buffer.table.q[1, number])
        pixels = at[numbers == number]
        if kind not in _GLOWS or len(pixels) < 2:
            continue
        x, y = (pixels % camera.width).mean() / 2, (pixels // camera.width).mean() / 2
        depth = max(float(buffer.depth[pixels[0]]), _GLOW_NEAR)
        colour, strength = _GLOWS[kind]
        radius = max(0.5 * _GLOW_SIZE * camera.width / depth, 2.0 * shot.unit)
        halos.append((colour, strength, float(x), float(y), radius))
    return halos


def _add_halo(image: Floats, centre: tuple[float, float], radius: float, colour: Floats) -> None:
    """A soft disc added to the image in place."""
    height, width = image.shape[:2]
    left, right = max(0, int(centre[0] - radius)), min(width, int(centre[0] + radius) + 2)
    top, bottom = max(0, int(centre[1] - radius)), min(height, int(centre[1] + radius) + 2)
    x = (np.arange(left, right, dtype=np.float32) - np.float32(centre[0])) / np.float32(radius)
    y = (np.arange(top, bottom, dtype=np.float32) - np.float32(centre[1])) / np.float32(radius)
    fall = np.clip(1 - (x * x)[None, :] - (y * y)[:, None], 0, 1) ** 3
    image[top:bottom, left:right] += fall[..., None] * colour

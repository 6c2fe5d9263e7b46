"""The ten looks: which palette, which light, which camera, which steps each adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dgss.streets import art, night, weather
from dgss.streets.kinds import Colour
from dgss.streets.lens import Sensor, grain, saturate, sharpen, tone, wide_blur
from dgss.streets.light import Light, Sky
from dgss.streets.noise import FINE, Stream, plane_noise
from dgss.streets.palettes import PaletteKind, hsv, mixed, scaled
from dgss.streets.shading import Shot

Step = Callable[[Shot], None]

_LIT_WINDOWS = 0.22
"""Share of windows with light behind them at night."""


@dataclass(frozen=True)
class Look:
    """One look. index: the number that keys its streams.

    Steps, in order: surface on the colours of surfaces, radiance on the linear light, finish on the picture.
    """

    index: int
    palette: PaletteKind
    light: Callable[[Stream], Light]
    finish: tuple[Step, ...]
    surface: tuple[Step, ...] = ()
    radiance: tuple[Step, ...] = ()


def _game_light(stream: Stream) -> Light:
    horizon = (0.62, 0.78, 0.95)
    sky = Sky((0.12, 0.32, 0.78), horizon, (1.0, 1.0, 1.0), stream.uniform(-0.7, 0.3), shift=stream.uniform())
    return Light((1.35, 1.2, 0.95), (0.32, 0.38, 0.48), (0.66, 0.79, 0.93), 900.0, sky, 1.25, 1.7, 0.55)


def _photo_light(stream: Stream) -> Light:
    """Daylight from overcast to sunny, exposed for the street: an overcast sky is blown out."""
    sunny = stream.pick((0.0, 0.25, 0.6, 1.0))
    sun = scaled((1.15, 1.06, 0.92), sunny)
    ambient = scaled((0.52, 0.56, 0.62), 1.25 - 0.5 * sunny)
    overcast = scaled((0.95, 0.97, 1.0), stream.uniform(1.2, 4.0))
    blue = scaled(mixed((0.22, 0.42, 0.8), (0.5, 0.62, 0.8), stream.uniform()), stream.uniform(0.9, 1.8))
    top = mixed(overcast, blue, min(1.0, sunny + 0.2) * stream.uniform(0.4, 1.0))
    horizon = mixed(top, scaled((0.95, 0.96, 0.97), stream.uniform(1.2, 3.5)), stream.uniform(0.4, 0.9))
    cloud = scaled((1.0, 1.0, 1.02), stream.uniform(0.9, 2.5))
    sky = Sky(top, horizon, cloud, stream.uniform(-0.6, 0.9), shift=stream.uniform())
    air = scaled(horizon, 0.7 / max(horizon))
    return Light(sun, ambient, air, stream.uniform(350, 900), sky, stream.uniform(0.5, 1.5))


def _night_light(stream: Stream) -> Light:
    ambient = scaled((0.05, 0.055, 0.085), stream.uniform(0.5, 1.3))
    sky = Sky((0.006, 0.007, 0.014), (0.03, 0.026, 0.026), (0.03, 0.027, 0.03), stream.uniform(-0.6, 0.6))
    return Light((0.03, 0.035, 0.05), ambient, (0.04, 0.035, 0.03), 500.0, sky, 1.7, lit_windows=_LIT_WINDOWS)


def _grey_light(stream: Stream, bright: tuple[float, float], reach: tuple[float, float], drowned: float) -> Light:
    """Light of a grey sky, with thick air: bright and reach in metres are ranges."""
    level = stream.uniform(*bright)
    ambient = scaled((0.62, 0.64, 0.67), level)
    tint = mixed((1.0, 0.97, 0.92), (0.95, 1.0, 1.0), stream.uniform())
    air = (0.62 * level * tint[0], 0.64 * level * tint[1], 0.66 * level * tint[2])
    sky = Sky(scaled(air, 1.15), air, scaled(air, 1.25), stream.uniform(-0.3, 0.8), drowned, shift=stream.uniform())
    return Light((0.06, 0.06, 0.06), ambient, air, stream.uniform(*reach), sky, stream.uniform(1.0, 1.5))


def _fog_light(stream: Stream) -> Light:
    return _grey_light(stream, (0.7, 1.0), (16, 42), 0.88)


def _rain_light(stream: Stream) -> Light:
    return _grey_light(stream, (0.5, 0.75), (70, 140), 0.3)


def _snow_light(stream: Stream) -> Light:
    return _grey_light(stream, (0.7, 1.0), (45, 110), 0.5)


def _paper_light(stream: Stream) -> Light:
    """Soft light for folded paper: no texture, clear air, a coloured sky."""
    top = hsv(stream.pick((0.5, 0.56, 0.6, 0.95, 0.1)), stream.uniform(0.35, 0.7), stream.uniform(0.5, 0.9))
    sky = Sky(top, mixed(top, (0.9, 0.9, 0.9), 0.3))
    return Light((0.6, 0.56, 0.5), (0.62, 0.64, 0.66), (0.75, 0.77, 0.8), 900.0, sky, stream.uniform(1, 1.5), texture=0)


def _any_light(stream: Stream) -> Light:
    """Light of any colour and strength; half of the time under a grey sky, often far brighter than the street."""
    sun = scaled(_three(stream, 0.7, 1.2), stream.uniform(0, 1.2))
    ambient = scaled(_three(stream, 0.3, 0.7), stream.uniform(0.6, 1.3))
    top, horizon = _three(stream, 0.1, 1.2), _three(stream, 0.3, 1.3)
    cover = stream.uniform(-0.8, 0.8)
    if stream.chance(0.5):
        grey = stream.uniform(0.7, 4.0)
        top, horizon = mixed(top, (grey, grey, grey), 0.9), mixed(horizon, (grey, grey, grey), 0.9)
        cover -= 0.6
    sky = Sky(top, horizon, _three(stream, 0.6, 1.2), cover, shift=stream.uniform())
    reach = stream.pick((10000.0, 800.0, 300.0, stream.uniform(40, 150)))
    exposure, texture = stream.uniform(0.35, 2.2), stream.uniform(0.3, 1.8)
    return Light(sun, ambient, scaled(horizon, min(1.0, 1.3 / max(horizon))), reach, sky, exposure, texture=texture)


def _three(stream: Stream, low: float, high: float) -> Colour:
    return (stream.uniform(low, high), stream.uniform(low, high), stream.uniform(low, high))


def _render_cleanly(shot: Shot) -> None:
    """The finish of a game: vivid, sharp, with glowing highlights."""
    shot.image = sharpen(saturate(shot.image, 1.25), 0.35, 1.2 * shot.unit)
    bright = np.maximum(shot.image - np.float32(0.75), 0)
    shot.image += 0.5 * wide_blur(bright, 5 * shot.unit)


def _turn_hue(shot: Shot) -> None:
    """Rotates all colours around grey, P(.6)."""
    stream = shot.stream
    if not stream.chance(0.6):
        return
    angle = stream.uniform(0, 2 * np.pi)
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * axis + np.sin(angle) * cross
    shot.image = np.clip(shot.image @ turn.T.astype(np.float32), 0, 1)


def _vary(shot: Shot) -> None:
    """Saturation, contrast, brightness, number of levels, sharpness, negative, overlay and noise, all at random."""
    stream = shot.stream
    image = saturate(shot.image, stream.pick((0.0, 0.4, 0.8, 1.0, 1.3, 1.7)))
    image = (image - 0.5) * np.float32(stream.uniform(0.5, 1.4)) + np.float32(0.5 + stream.uniform(-0.15, 0.15))
    if stream.chance(0.15):
        levels = stream.whole(4, 8)
        image = np.round(np.clip(image, 0, 1) * levels) / np.float32(levels)
    kind = stream.uniform()
    if kind < 0.4:
        image = wide_blur(image, stream.uniform(0.4, 1.2) * shot.unit)
    elif kind < 0.8:
        image = sharpen(image, stream.uniform(0.3, 1.5), 1.2 * shot.unit)
    if stream.chance(0.15):
        image = 1 - image
    if stream.chance(0.2):
        height, width = image.shape[:2]
        field = plane_noise(stream.whole(0, FINE), height, width, stream.uniform(0.3, 2), stream.uniform(0.3, 2))
        image = image + np.float32(stream.uniform(0.05, 0.25)) * field[..., None]
    shot.image = np.asarray(image, np.float32)


def _any_noise(shot: Shot) -> None:
    grain(shot, shot.stream.uniform(0, 0.13) * shot.stream.uniform())


_PHOTO = Sensor((0.8, 1.15), 0.03, contrast=(0.15, 0.7))
_NIGHT = Sensor((0.95, 0.95), 0.055)
_FOG = Sensor((0.6, 0.6), 0.035, contrast=(0.0, 0.0))
_RAIN = Sensor((0.75, 0.75), 0.035, blur=(0.6, 1.0))
_SNOW = Sensor((0.7, 0.7), 0.035)

TABLE: dict[str, Look] = {
    "game": Look(0, PaletteKind.GAME, _game_light, (tone, _render_cleanly)),
    "photo": Look(1, PaletteKind.PHOTO, _photo_light, (tone, _PHOTO.expose)),
    "night": Look(2, PaletteKind.PHOTO, _night_light, (night.bloom, tone, _NIGHT.expose), radiance=(night.shine,)),
    "fog": Look(3, PaletteKind.PHOTO, _fog_light, (tone, _FOG.expose)),
    "rain": Look(
        4,
        PaletteKind.PHOTO,
        _rain_light,
        (weather.mirror_ground, tone, weather.rain_streaks, weather.lens_drops, _RAIN.expose),
        surface=(weather.wet_ground,),
    ),
    "snow": Look(
        5, PaletteKind.PHOTO, _snow_light, (tone, weather.flakes, _SNOW.expose), surface=(weather.snow_cover,)
    ),
    "sketch": Look(6, PaletteKind.PHOTO, _photo_light, (tone, art.draw_lines)),
    "painting": Look(7, PaletteKind.PHOTO, _photo_light, (tone, art.paint_strokes)),
    "origami": Look(
        8,
        PaletteKind.PHOTO,
        _paper_light,
        (tone, art.paper_grain),
        surface=(art.fold,),
        radiance=(art.fold_sky, art.paper_shadows),
    ),
    "rand": Look(9, PaletteKind.RAND, _any_light, (tone, _turn_hue, _vary, _any_noise)),
}

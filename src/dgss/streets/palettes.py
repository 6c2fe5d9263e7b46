"""Colours of things, linear-light RGB: clean and saturated, muted and varied, or anything at all."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from enum import IntEnum

from dgss.streets.kinds import Colour
from dgss.streets.noise import Stream

Maker = Callable[[Stream], Colour]

SIGN_BLUE: Colour = (0.04, 0.12, 0.5)
SIGN_RED: Colour = (0.7, 0.03, 0.03)
SIGN_GREEN: Colour = (0.02, 0.3, 0.12)
SIGN_YELLOW: Colour = (0.8, 0.6, 0.03)
WHITE: Colour = (0.85, 0.85, 0.85)
BLACK: Colour = (0.02, 0.02, 0.022)
TYRE: Colour = (0.018, 0.018, 0.02)
GLASS: Colour = (0.05, 0.06, 0.07)
SKIN: Colour = (0.62, 0.42, 0.32)

_ANY_COLOUR_SHARE = 0.75  # how often the palette RAND forgets what a thing usually looks like


class PaletteKind(IntEnum):
    """Which palette a look draws its colours from; its number keys the layout stream."""

    GAME = 0
    PHOTO = 1
    RAND = 2


class Palette:
    """Draws a colour for a key: road, sidewalk, terrain, leaf, bark, building, wall, fence, roof, metal, car ..."""

    def __init__(self, kind: PaletteKind) -> None:
        self.kind = kind

    def colour(self, key: str, stream: Stream) -> Colour:
        """A colour for a thing of this kind."""
        if self.kind is PaletteKind.RAND and stream.chance(_ANY_COLOUR_SHARE):
            return hsv(stream.uniform(), stream.uniform(0, 0.8), stream.uniform(0.05, 0.9))
        if self.kind is PaletteKind.GAME and key in _GAME:
            return _GAME[key](stream)
        return _PHOTO[key](stream)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour by hue, saturation and value, each 0 to 1."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), value)


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour made lighter or darker."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """A colour between two: `share` of the second."""
    a, b = 1 - share, share
    return (a * first[0] + b * second[0], a * first[1] + b * second[1], a * first[2] + b * second[2])


def _shade(base: Colour, low: float, high: float) -> Maker:
    return lambda stream: scaled(base, stream.uniform(low, high))


def _tinted(base: Colour, low: float, high: float) -> Maker:
    """Lighter or darker, and with more or less red: green things of every season."""

    def make(stream: Stream) -> Colour:
        red, green, blue = scaled(base, stream.uniform(low, high))
        return (red * stream.uniform(0.9, 1.5), green, blue)

    return make


def _range(hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Maker:
    return lambda stream: hsv(stream.uniform(*hue), stream.uniform(*saturation), stream.uniform(*value))


def _one_of(*makers: Maker) -> Maker:
    return lambda stream: stream.pick(makers)(stream)


def _darker(maker: Maker, factor: float) -> Maker:
    return lambda stream: scaled(maker(stream), factor)


def _skin(stream: Stream) -> Colour:
    return scaled(SKIN, stream.uniform(0.4, 1.15))


def _game_house(stream: Stream) -> Colour:
    hue = stream.pick((0.02, 0.06, 0.08, 0.1, 0.12, 0.58))
    return hsv(hue, stream.uniform(0.12, 0.45), stream.uniform(0.45, 0.85))


_GREY = _range((0.05, 0.12), (0.0, 0.08), (0.25, 0.6))
_PLASTER = _range((0.04, 0.13), (0.1, 0.35), (0.25, 0.7))
_BRICK = _range((0.0, 0.04), (0.35, 0.6), (0.2, 0.42))
_OCHRE = _range((0.09, 0.12), (0.35, 0.55), (0.35, 0.55))
_CAR_PAINTS = (
    _range((0.6, 0.65), (0, 0.15), (0.015, 0.05)),
    _range((0.55, 0.62), (0, 0.1), (0.12, 0.4)),
    _range((0.1, 0.14), (0, 0.05), (0.6, 0.8)),
    _one_of(_range((0.98, 1.01), (0.75, 0.92), (0.12, 0.4)), _range((0.58, 0.64), (0.55, 0.85), (0.08, 0.3))),
)
_PHOTO_CLOTH = _range((0, 1), (0, 0.5), (0.03, 0.45))
_GAME_CLOTH = _range((0, 1), (0.3, 0.8), (0.2, 0.7))

_PHOTO: dict[str, Maker] = {
    "road": _shade((0.17, 0.17, 0.18), 0.7, 1.8),
    "sidewalk": _shade((0.34, 0.33, 0.31), 0.6, 1.4),
    "terrain": _tinted((0.16, 0.22, 0.07), 0.7, 1.5),
    "leaf": _tinted((0.09, 0.15, 0.045), 0.6, 1.6),
    "bark": _shade((0.11, 0.085, 0.06), 0.6, 1.5),
    "building": _one_of(_PLASTER, _PLASTER, _GREY, _BRICK, _BRICK, _OCHRE),
    "fascia": _one_of(_range((0, 1), (0.3, 0.9), (0.05, 0.5)), _GREY),
    "wall": _one_of(_GREY, _BRICK, _PLASTER),
    "fence": _one_of(
        _range((0.06, 0.1), (0.3, 0.55), (0.08, 0.3)),
        _range((0.3, 0.4), (0.2, 0.5), (0.05, 0.2)),
        _range((0.5, 0.6), (0, 0.1), (0.15, 0.5)),
    ),
    "roof": _one_of(_range((0.02, 0.06), (0.3, 0.6), (0.15, 0.35)), _range((0.55, 0.65), (0.02, 0.15), (0.07, 0.25))),
    "metal": _range((0.5, 0.62), (0.0, 0.15), (0.1, 0.4)),
    "car": _one_of(*_CAR_PAINTS),
    "truck": _one_of(_GREY, *_CAR_PAINTS),
    "bus": _one_of(
        _range((0.97, 1.02), (0.6, 0.9), (0.2, 0.5)),
        _range((0.1, 0.13), (0.5, 0.85), (0.45, 0.65)),
        _range((0.55, 0.62), (0.3, 0.7), (0.15, 0.5)),
        _GREY,
    ),
    "train": _one_of(
        _range((0.97, 1.02), (0.5, 0.85), (0.2, 0.45)),
        _range((0.1, 0.14), (0.3, 0.7), (0.45, 0.65)),
        _range((0.35, 0.6), (0.2, 0.6), (0.2, 0.45)),
    ),
    "two-wheeler": _one_of(_range((0, 1), (0, 0.8), (0.03, 0.35)), _shade((0.03, 0.03, 0.03), 0.6, 1.5)),
    "cloth": _PHOTO_CLOTH,
    "trousers": _darker(_PHOTO_CLOTH, 0.6),
    "hair": _range((0.04, 0.1), (0.2, 0.6), (0.015, 0.2)),
    "skin": _skin,
}

_GAME: dict[str, Maker] = {
    "road": lambda stream: scaled((1.0, 1.0, 1.02), 0.23 + stream.uniform(-0.04, 0.05)),
    "sidewalk": _shade((0.52, 0.47, 0.40), 0.85, 1.1),
    "terrain": _shade((0.33, 0.36, 0.10), 0.8, 1.2),
    "leaf": _shade((0.16, 0.30, 0.06), 0.7, 1.2),
    "building": _game_house,
    "fascia": _range((0, 1), (0.6, 0.9), (0.3, 0.7)),
    "wall": _range((0.05, 0.12), (0.05, 0.25), (0.4, 0.7)),
    "fence": _one_of(_range((0.06, 0.1), (0.3, 0.5), (0.3, 0.55)), _range((0.55, 0.6), (0.02, 0.15), (0.4, 0.7))),
    "roof": _one_of(_range((0.01, 0.05), (0.5, 0.7), (0.35, 0.5)), _range((0.55, 0.62), (0.1, 0.25), (0.2, 0.35))),
    "metal": _range((0.55, 0.6), (0.02, 0.12), (0.3, 0.5)),
    "car": _one_of(
        _range((0, 1), (0.7, 0.95), (0.4, 0.8)),
        _range((0, 1), (0.7, 0.95), (0.4, 0.8)),
        _range((0.1, 0.12), (0, 0.04), (0.75, 0.9)),
        _range((0.6, 0.62), (0, 0.1), (0.02, 0.06)),
    ),
    "truck": _range((0, 1), (0.1, 0.6), (0.3, 0.75)),
    "bus": _range((0, 1), (0.4, 0.8), (0.4, 0.75)),
    "train": _range((0, 1), (0.3, 0.7), (0.4, 0.7)),
    "two-wheeler": _range((0, 1), (0.5, 0.9), (0.2, 0.7)),
    "cloth": _GAME_CLOTH,
    "trousers": _darker(_GAME_CLOTH, 0.6),
}

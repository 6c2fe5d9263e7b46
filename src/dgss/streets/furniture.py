"""What stands on the sidewalk: posts, street lights, traffic lights, signs, gantries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin

from dgss.streets.kinds import Colour, Glow, Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import (
    BLACK,
    SIGN_BLUE,
    SIGN_GREEN,
    SIGN_RED,
    SIGN_YELLOW,
    WHITE,
    Palette,
    PaletteKind,
    hsv,
)
from dgss.streets.raster import Brush, Canvas, Point2

_LIT = 1.6  # own light of a lit signal disc by day
_UNLIT = 0.12
_SIGNALS: tuple[Colour, ...] = ((1.0, 0.08, 0.04), (1.0, 0.5, 0.03), (0.08, 0.9, 0.35))  # from top to bottom
_HOUSING: Colour = (0.025, 0.03, 0.028)


@dataclass(frozen=True)
class StreetLamp:
    """A street lamp that the night may light: its place in metres."""

    x: float
    y: float
    z: float


def disc(centre: Point2, radius: float, corners: int = 12, squeeze: float = 1.0) -> list[Point2]:
    """A circle as a polygon, `squeeze` times as wide as high."""
    step = 2 * pi / corners
    return [
        (centre[0] + squeeze * radius * cos(step * corner), centre[1] + radius * sin(step * corner))
        for corner in range(corners)
    ]


def rectangle(left: float, bottom: float, right: float, top: float) -> list[Point2]:
    """An upright rectangle as a polygon."""
    return [(left, bottom), (left, top), (right, top), (right, bottom)]


def _post(canvas: Canvas, brush: Brush, x: float, z: float, height: float, width: float, colour: Colour) -> None:
    brush.line(z, (x, 0.0), (x, height), width, Material.METAL, colour)
    half = width / 2
    canvas.cast([(x - half, z - half), (x + half, z - half), (x + half, z + half), (x - half, z + half)], height)


def bollard(canvas: Canvas, stream: Stream, x: float, z: float) -> None:
    """A bollard or a plain post."""
    tall = stream.chance(0.35)
    height = stream.uniform(3, 6) if tall else stream.uniform(0.8, 1.1)
    colour = canvas.palette.colour("metal", stream)
    _post(canvas, canvas.brush(Label.POLE), x, z, height, stream.uniform(0.1, 0.16), colour)


def street_light(canvas: Canvas, stream: Stream, x: float, z: float, side: int) -> None:
    """A street light whose arm reaches over the road."""
    height, arm = stream.uniform(5.5, 8.5), stream.uniform(0.6, 2.0)
    colour = canvas.palette.colour("metal", stream)
    brush = canvas.brush(Label.POLE)
    _post(canvas, brush, x, z, height, stream.uniform(0.12, 0.2), colour)
    tip = x - side * arm
    brush.line(z, (x, height - 0.1), (tip, height + 0.15), 0.09, Material.METAL, colour)
    head = [(tip + side * 0.35, height + 0.05), (tip + side * 0.3, height + 0.24), (tip - side * 0.3, height + 0.2)]
    brush.front(z, [*head, (tip - side * 0.3, height + 0.05)], Material.METAL, colour)
    glass = rectangle(tip - 0.22, height - 0.03, tip + 0.22, height + 0.07)
    brush.front(z, glass, Material.LAMP, (0.7, 0.7, 0.66), (0.0, float(Glow.STREET)))


def traffic_light(canvas: Canvas, stream: Stream, x: float, z: float, side: int, lit: int) -> None:
    """A traffic light; with an arm over the road now and then. `lit`: 0 red, 1 amber, 2 green."""
    colour = canvas.palette.colour("metal", stream)
    armed = stream.chance(0.35)
    height = 5.6 if armed else 3.0
    post = canvas.brush(Label.POLE)
    _post(canvas, post, x, z, height, 0.15, colour)
    _signal_head(canvas.brush(Label.TRAFFIC_LIGHT), (x - side * 0.1, 2.75), z, lit)
    if armed:
        tip = x - side * 3.5
        post.line(z, (x, height), (tip, height + 0.1), 0.12, Material.METAL, colour)
        _signal_head(canvas.brush(Label.TRAFFIC_LIGHT), (tip, height - 0.25), z, lit)


def _signal_head(brush: Brush, centre: Point2, z: float, lit: int) -> None:
    x, y = centre
    brush.front(z, rectangle(x - 0.19, y - 0.5, x + 0.19, y + 0.5), Material.METAL, _HOUSING)
    for number, colour in enumerate(_SIGNALS):
        strength = _LIT if number == lit else 0.0
        shown = colour if number == lit else (colour[0] * _UNLIT, colour[1] * _UNLIT, colour[2] * _UNLIT)
        glow = float(Glow.SIGNAL if number == lit else Glow.NONE)
        face = disc((x, y + 0.3 - 0.3 * number), 0.115)
        brush.front(z, face, Material.LAMP, shown, (strength, glow))


def _ring_sign(brush: Brush, centre: Point2, z: float, radius: float, colours: Palette, stream: Stream) -> None:
    """Prohibition: red ring on white with a bar or a number."""
    brush.front(z, disc(centre, radius), Material.METAL, _sign(colours, stream, SIGN_RED))
    brush.front(z, disc(centre, 0.72 * radius), Material.METAL, _sign(colours, stream, WHITE))
    x, y = centre
    half = 0.42 * radius
    brush.front(z, rectangle(x - half, y - 0.13 * radius, x + half, y + 0.13 * radius), Material.METAL, BLACK)


def _no_entry(brush: Brush, centre: Point2, z: float, radius: float, colours: Palette, stream: Stream) -> None:
    brush.front(z, disc(centre, radius), Material.METAL, _sign(colours, stream, SIGN_RED))
    x, y = centre
    bar = rectangle(x - 0.68 * radius, y - 0.16 * radius, x + 0.68 * radius, y + 0.16 * radius)
    brush.front(z, bar, Material.METAL, WHITE)


def _warning(brush: Brush, centre: Point2, z: float, radius: float, colours: Palette, stream: Stream) -> None:
    x, y = centre
    for size, colour in ((1.0, SIGN_RED), (0.64, WHITE)):
        reach = size * radius
        outline = [(x, y + 1.1 * reach), (x + reach, y - 0.65 * reach), (x - reach, y - 0.65 * reach)]
        brush.front(z, outline, Material.METAL, _sign(colours, stream, colour))
    brush.front(
        z, rectangle(x - 0.07 * radius, y - 0.3 * radius, x + 0.07 * radius, y + 0.3 * radius), Material.METAL, BLACK
    )


def _direction(brush: Brush, centre: Point2, z: float, radius: float, colours: Palette, stream: Stream) -> None:
    """Blue disc with an arrow."""
    x, y = centre
    brush.front(z, disc(centre, radius), Material.METAL, _sign(colours, stream, SIGN_BLUE))
    brush.front(
        z, rectangle(x - 0.1 * radius, y - 0.6 * radius, x + 0.1 * radius, y + 0.2 * radius), Material.METAL, WHITE
    )
    head = [(x - 0.4 * radius, y + 0.1 * radius), (x, y + 0.65 * radius), (x + 0.4 * radius, y + 0.1 * radius)]
    brush.front(z, head, Material.METAL, WHITE)


def _square(brush: Brush, centre: Point2, z: float, radius: float, colours: Palette, stream: Stream) -> None:
    """Blue square with a white mark: parking, crossing."""
    x, y = centre
    brush.front(z, rectangle(x - radius, y - radius, x + radius, y + radius), Material.METAL, WHITE)
    inner = 0.88 * radius
    blue = _sign(colours, stream, SIGN_BLUE)
    brush.front(z, rectangle(x - inner, y - inner, x + inner, y + inner), Material.METAL, blue)
    outline = [(x, y + 0.6 * radius), (x + 0.5 * radius, y - 0.5 * radius), (x - 0.5 * radius, y - 0.5 * radius)]
    brush.front(z, outline, Material.METAL, WHITE)


def _diamond(brush: Brush, centre: Point2, z: float, radius: float, colours: Palette, stream: Stream) -> None:
    """Yellow diamond with a white rim."""
    for size, colour in ((1.15, WHITE), (0.85, SIGN_YELLOW)):
        x, y, reach = *centre, size * radius
        outline = [(x, y + reach), (x + reach, y), (x, y - reach), (x - reach, y)]
        brush.front(z, outline, Material.METAL, _sign(colours, stream, colour))


_FACES: tuple[Callable[[Brush, Point2, float, float, Palette, Stream], None], ...] = (
    _ring_sign,
    _no_entry,
    _warning,
    _direction,
    _square,
    _diamond,
)


def _sign(palette: Palette, stream: Stream, usual: Colour) -> Colour:
    """The usual colour of a sign, or any where the palette knows no rule."""
    if palette.kind is PaletteKind.RAND and stream.chance(0.5):
        return hsv(stream.uniform(), stream.uniform(0.3, 1.0), stream.uniform(0.2, 0.9))
    return usual


def traffic_sign(canvas: Canvas, stream: Stream, x: float, z: float) -> None:
    """A sign on its own post, sometimes two."""
    height = stream.uniform(2.0, 3.2)
    _post(canvas, canvas.brush(Label.POLE), x, z, height, 0.08, canvas.palette.colour("metal", stream))
    radius = stream.uniform(0.3, 0.5)
    brush = canvas.brush(Label.TRAFFIC_SIGN)
    stream.pick(_FACES)(brush, (x, height - 0.3 * radius), z, radius, canvas.palette, stream)
    if stream.chance(0.25):
        plate = rectangle(x - radius, height - 2.2 * radius, x + radius, height - 1.5 * radius)
        brush.front(z, plate, Material.METAL, WHITE)


def gantry(canvas: Canvas, stream: Stream, left: float, right: float, z: float) -> None:
    """Two posts, a beam over the road and a panel with rows of text."""
    colour = canvas.palette.colour("metal", stream)
    post = canvas.brush(Label.POLE)
    for x in (left, right):
        _post(canvas, post, x, z, 6.2, 0.25, colour)
    post.line(z, (left, 6.0), (right, 6.0), 0.3, Material.METAL, colour)
    x, y = stream.uniform(0.4, 0.6) * (right - left) + left, 6.0
    brush = canvas.brush(Label.TRAFFIC_SIGN)
    panel = _sign(canvas.palette, stream, stream.pick((SIGN_BLUE, SIGN_GREEN)))
    brush.front(z, rectangle(x - 2.2, y - 0.9, x + 2.2, y + 0.9), Material.METAL, WHITE)
    brush.front(z, rectangle(x - 2.12, y - 0.82, x + 2.12, y + 0.82), Material.METAL, panel)
    for row in range(3):
        begin, length = x - 1.8, stream.uniform(1.2, 2.8)
        low = y + 0.4 - 0.5 * row
        brush.front(z, rectangle(begin, low - 0.1, begin + length, low + 0.12), Material.METAL, WHITE)

"""Trucks, buses and trams: boxes with windows, stripes, wheels and panels."""

from __future__ import annotations

from dgss.streets.kinds import Colour, Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import BLACK, GLASS, WHITE, scaled
from dgss.streets.raster import Canvas
from dgss.streets.solids import COARSE, Frame, Solid

_PANE = 1.6  # metres from window to window
_AMBER: Colour = (0.75, 0.45, 0.05)
_PANEL_LIGHT = 0.35  # own light of a destination panel by day
_CAB = 1.9  # metres


def truck(canvas: Canvas, stream: Stream, frame: Frame, length: float) -> None:
    """A truck: cab ahead, cargo box behind."""
    half, height = 1.2, stream.uniform(2.9, 3.6)
    cargo, cab = canvas.palette.colour("truck", stream), canvas.palette.colour("truck", stream)
    solid = Solid.start(canvas, Label.TRUCK, frame, length)
    solid.tyres(0.1, -1, half, 0.8)
    solid.tyres(length - 0.1, 1, half, 0.6)
    if frame.cosine < 0:  # the part that lies farther away comes first
        _cargo(solid, length, half, height, cargo)
        _cab(solid, length, half, 0.8 * height, cab)
    else:
        _cab(solid, length, half, 0.8 * height, cab)
        _cargo(solid, length, half, height, cargo)
    if solid.scale > COARSE:
        for side in (-1, 1):
            for along in (0.16 * length, 0.16 * length + 1.15, length - 1.3):
                solid.wheel(along, side * (half + 0.01), 0.48)
    solid.shade(length, half, height)


def _cargo(solid: Solid, length: float, half: float, height: float, colour: Colour) -> None:
    end = length - _CAB - 0.25
    solid.box((0.0, end), half, (0.75, height), colour, height)
    for across in (-half, half):
        bed = ((0.0, 0.6), (0.0, 0.78), (end + 0.3, 0.78), (end + 0.3, 0.6))
        solid.side(across, bed, Material.METAL, BLACK)
    if solid.scale > COARSE:
        solid.end(0.0, -1, (-0.02, 0.8, 0.02, height - 0.08), Material.METAL, scaled(colour, 0.5))
        solid.end(0.0, -1, (-half, 0.6, half, 0.78), Material.METAL, BLACK)
        solid.lights(0.0, -1, half, (0.62, 0.76), 0.0)
        solid.end(0.0, -1, (-0.27, 0.64, 0.27, 0.74), Material.METAL, WHITE)


def _cab(solid: Solid, length: float, half: float, height: float, colour: Colour) -> None:
    begin = length - _CAB
    solid.box((begin, length), 0.98 * half, (0.45, height), colour, height)
    glass = (height,)
    for across in (-half, half):
        window = ((begin + 0.7, 0.58 * height), (begin + 0.7, 0.88 * height))
        front = ((length - 0.15, 0.88 * height), (length - 0.1, 0.58 * height))
        solid.side(across, (*window, *front), Material.GLASS, GLASS, glass)
    solid.end(length, 1, (-0.88 * half, 0.55 * height, 0.88 * half, 0.9 * height), Material.GLASS, GLASS, glass)
    solid.end(length, 1, (-0.6 * half, 0.9, 0.6 * half, 0.46 * height), Material.METAL, BLACK)
    solid.lights(length, 1, 0.95 * half, (0.62, 0.86), 0.0)


def bus(canvas: Canvas, stream: Stream, frame: Frame, length: float) -> None:
    """A city bus."""
    half, height = 1.25, stream.uniform(3.0, 3.25)
    colour, stripe = canvas.palette.colour("bus", stream), canvas.palette.colour("bus", stream)
    solid = Solid.start(canvas, Label.BUS, frame, length)
    solid.tyres(0.15, -1, half, 0.5)
    solid.tyres(length - 0.15, 1, half, 0.5)
    _coach(solid, (0.0, length), half, height, (colour, stripe))
    for facing, along in ((-1, 0.0), (1, length)):
        _coach_end(solid, along, facing, half, height)
    if solid.scale > COARSE:
        for side in (-1, 1):
            for along in (0.24 * length, 0.78 * length):
                solid.wheel(along, side * (half + 0.01), 0.5)
    solid.shade(length, half, height)


def tram(canvas: Canvas, stream: Stream, frame: Frame, length: float) -> None:
    """A tram of one to three cars, hiding its wheels."""
    half, height = 1.25, stream.uniform(3.3, 3.5)
    colour, stripe = canvas.palette.colour("train", stream), canvas.palette.colour("train", stream)
    solid = Solid.start(canvas, Label.TRAIN, frame, length)
    cars = max(1, round(length / 10))
    spans = [(length * car / cars + 0.15, length * (car + 1) / cars - 0.15) for car in range(cars)]
    for span in spans if frame.cosine < 0 else spans[::-1]:
        _coach(solid, span, half, height, (colour, stripe), skirt=0.18)
        for along in span:
            solid.box((along - 0.16, along + 0.16), 0.85 * half, (0.3, 0.94 * height), BLACK, height)
    for facing, along in ((-1, 0.15), (1, length - 0.15)):
        _coach_end(solid, along, facing, half, height)
    solid.shade(length, half, height)


def _coach(
    solid: Solid,
    span: tuple[float, float],
    half: float,
    height: float,
    colours: tuple[Colour, Colour],
    skirt: float = 0.32,
) -> None:
    """Body, stripe, windows and doors of one car."""
    begin, end = span
    solid.box(span, half, (skirt, height), colours[0], height)
    low, high = 0.42 * height, 0.8 * height
    for across in (-half, half):
        stripe = ((begin, 0.3 * height), (begin, 0.37 * height), (end, 0.37 * height), (end, 0.3 * height))
        solid.side(across, stripe, Material.PAINT, colours[1], (height,))
        panes = max(1, int((end - begin) / _PANE)) if solid.scale > COARSE else 1
        pitch = (end - begin) / panes
        for pane in range(panes):
            left, right = begin + pane * pitch + 0.1, begin + (pane + 1) * pitch - 0.1
            bottom = 0.16 * height if panes > 3 and pane % 4 == 2 else low
            window = ((left, bottom), (left, high), (right, high), (right, bottom))
            solid.side(across, window, Material.GLASS, GLASS, (height,))


def _coach_end(solid: Solid, along: float, facing: int, half: float, height: float) -> None:
    """Windscreen or rear window, destination panel, lights."""
    low = 0.36 * height if facing > 0 else 0.5 * height
    solid.end(along, facing, (-0.9 * half, low, 0.9 * half, 0.8 * height), Material.GLASS, GLASS, (height,))
    if solid.scale > COARSE:
        panel = (-0.7 * half, 0.84 * height, 0.7 * half, 0.94 * height)
        solid.end(along, facing, panel, Material.METAL, BLACK)
        text = (-0.5 * half, 0.865 * height, 0.5 * half, 0.915 * height)
        solid.end(along, facing, text, Material.LAMP, _AMBER, (_PANEL_LIGHT, 0.0))
        solid.end(along, facing, (-half, 0.3, half, 0.45), Material.METAL, BLACK)
        solid.lights(along, facing, half, (0.55, 0.78), 0.0)

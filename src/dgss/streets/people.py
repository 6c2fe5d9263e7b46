"""People: standing, walking, and riding two-wheelers."""

from __future__ import annotations

from dataclasses import dataclass

from dgss.streets.furniture import disc, rectangle
from dgss.streets.kinds import Colour, Label, Material
from dgss.streets.noise import Stream
from dgss.streets.palettes import TYRE, Palette, scaled
from dgss.streets.raster import Brush, Canvas, Point2

_SMALL = 14.0  # buffer pixels of height under which a person is three polygons
_CHILD_SHARE = 0.1


@dataclass(frozen=True)
class Clothes:
    """The colours of one person."""

    top: Colour
    legs: Colour
    skin: Colour
    hair: Colour
    shoes: Colour


def dress(palette: Palette, stream: Stream) -> Clothes:
    """Draws the colours of one person."""
    return Clothes(
        palette.colour("cloth", stream),
        palette.colour("trousers", stream),
        palette.colour("skin", stream),
        palette.colour("hair", stream),
        scaled((0.1, 0.08, 0.07), stream.uniform(0.2, 2.0)),
    )


def person(canvas: Canvas, stream: Stream, x: float, z: float) -> None:
    """A person on foot at (x, z)."""
    height = stream.uniform(1.0, 1.4) if stream.chance(_CHILD_SHARE) else stream.uniform(1.5, 1.9)
    clothes = dress(canvas.palette, stream)
    brush = canvas.brush(Label.PERSON, thing=True)
    stride = stream.uniform(-0.25, 0.25)
    turn = stream.uniform(0.72, 1.0)
    figure = _Figure(brush, x, z, height / 1.75, turn, clothes)
    if canvas.camera.scale(z) * height < _SMALL:
        figure.outline()
    else:
        figure.legs(stride, skirt=stream.chance(0.15))
        figure.arm(-1, stride)
        figure.torso()
        figure.arm(1, -stride)
        figure.head(stream.chance(0.35))
        if stream.chance(0.25):
            figure.bag(stream)
    half = 0.22 * turn
    foot = [(x - half, z - 0.12), (x + half, z - 0.12), (x + half, z + 0.12), (x - half, z + 0.12)]
    canvas.touch(foot)
    canvas.cast(foot, height)


@dataclass(frozen=True)
class _Figure:
    """The parts of a person in one plane; `size` 1 is 1.75 m, `turn` 1 is seen from the front."""

    brush: Brush
    x: float
    z: float
    size: float
    turn: float
    clothes: Clothes

    def place(self, points: list[Point2]) -> list[Point2]:
        """Points of a figure of 1.75 m at x = 0, in the world."""
        size, wide = self.size, self.size * self.turn
        return [(self.x + wide * px, size * py) for px, py in points]

    def fill(self, points: list[Point2], colour: Colour, half: float = 0.2) -> None:
        """A piece of cloth or skin; `half` its half width for the shading."""
        self.brush.front(self.z, self.place(points), Material.CLOTH, colour, (half * self.size,), (self.x, 0.0))

    def limb(self, start: Point2, end: Point2, width: float, colour: Colour) -> None:
        """An arm or a leg."""
        first, last = self.place([start, end])
        self.brush.line(self.z, first, last, width * self.size, Material.CLOTH, colour)

    def outline(self) -> None:
        """The whole figure in three pieces, for the distance."""
        clothes = self.clothes
        self.fill([(-0.14, 0.0), (-0.15, 0.85), (0.15, 0.85), (0.14, 0.0)], clothes.legs)
        self.fill([(-0.19, 0.8), (-0.22, 1.42), (0.22, 1.42), (0.19, 0.8)], clothes.top)
        self.fill([(-0.09, 1.42), (-0.09, 1.72), (0.09, 1.72), (0.09, 1.42)], clothes.skin)

    def legs(self, stride: float, skirt: bool) -> None:
        """Two legs with shoes, `stride` metres apart, or a skirt over them."""
        clothes = self.clothes
        colour = clothes.skin if skirt else clothes.legs
        for hip, foot in ((0.09, 0.1 + stride), (-0.09, -0.1 - stride)):
            knee = ((hip + foot) / 2 + 0.03, 0.46)
            self.limb((hip, 0.92), knee, 0.17, colour)
            self.limb(knee, (foot, 0.06), 0.13, colour)
            self.fill([(foot - 0.07, 0.0), (foot - 0.07, 0.09), (foot + 0.08, 0.07), (foot + 0.13, 0.0)], clothes.shoes)
        if skirt:
            self.fill([(-0.17, 0.95), (-0.27, 0.5), (0.27, 0.5), (0.17, 0.95)], clothes.legs, 0.25)

    def torso(self) -> None:
        """Shoulders to hips, and the neck."""
        self.fill([(-0.055, 1.4), (-0.055, 1.55), (0.055, 1.55), (0.055, 1.4)], self.clothes.skin, 0.06)
        outline = [(-0.17, 0.84), (-0.18, 1.1), (-0.235, 1.36), (-0.15, 1.45)]
        mirrored = [(-px, py) for px, py in outline[::-1]]
        self.fill([*outline, *mirrored], self.clothes.top, 0.22)

    def arm(self, side: int, swing: float) -> None:
        """One arm with its hand."""
        elbow = (side * 0.27 + 0.3 * swing, 1.1)
        hand = (side * 0.25 + 0.8 * swing, 0.86)
        sleeve = scaled(self.clothes.top, 0.9)
        self.limb((side * 0.21, 1.38), elbow, 0.1, sleeve)
        self.limb(elbow, hand, 0.09, sleeve)
        self.fill(disc(hand, 0.05, 6), self.clothes.skin, 0.05)

    def head(self, long_hair: bool) -> None:
        """Head with hair."""
        self.fill(disc((0.0, 1.635), 0.125, 10, 0.78), self.clothes.skin, 0.1)
        low = 1.5 if long_hair else 1.64
        hair = [
            (-0.1, low),
            (-0.115, 1.68),
            (-0.075, 1.77),
            (0.0, 1.79),
            (0.075, 1.77),
            (0.115, 1.68),
            (0.1, low + 0.04),
        ]
        self.fill([*hair, (0.0, 1.69)], self.clothes.hair, 0.1)

    def bag(self, stream: Stream) -> None:
        """A bag at one side."""
        x, y = stream.pick((-0.3, 0.26)), stream.uniform(0.75, 1.0)
        self.fill(rectangle(x - 0.1, y - 0.16, x + 0.12, y + 0.1), scaled(self.clothes.shoes, 1.5), 0.12)

    def seated(self, foot_height: float, lean: float, facing: int) -> None:
        """Seen from the side on a two-wheeler: back leaning forward, knees bent, hands on the bar."""
        clothes = self.clothes
        hip, shoulder = (-0.2 * facing, 0.95), ((0.12 * lean - 0.1) * facing, 1.42)
        for foot_x, knee_x in ((0.0, 0.2), (0.14, 0.28)):
            knee = (knee_x * facing, 0.78)
            self.limb(hip, knee, 0.17, clothes.legs)
            self.limb(knee, (foot_x * facing, foot_height), 0.13, clothes.legs)
            heel = foot_x * facing
            self.fill(rectangle(heel - 0.08, foot_height - 0.08, heel + 0.12, foot_height + 0.02), clothes.shoes, 0.1)
        back = [(hip[0] - 0.13, 0.88), (shoulder[0] - 0.14, 1.4), (shoulder[0], 1.5), (shoulder[0] + 0.13, 1.38)]
        self.fill([*back, (hip[0] + 0.14, 0.9)], clothes.top, 0.16)
        hand = (0.42 * facing, 1.05)
        elbow = ((shoulder[0] + hand[0]) / 2, 1.12)
        self.limb((shoulder[0], 1.38), elbow, 0.1, scaled(clothes.top, 0.88))
        self.limb(elbow, hand, 0.08, scaled(clothes.top, 0.88))
        self.fill(disc((shoulder[0] + 0.06 * facing, 1.66), 0.13, 10, 0.85), clothes.skin, 0.1)
        self._helmet((shoulder[0] + 0.06 * facing, 1.7))

    def astride(self, foot_height: float) -> None:
        """Seen from behind or in front on a two-wheeler."""
        clothes = self.clothes
        for side in (-1, 1):
            self.limb((side * 0.1, 0.95), (side * 0.2, 0.72), 0.17, clothes.legs)
            self.limb((side * 0.2, 0.72), (side * 0.17, foot_height), 0.14, clothes.legs)
            self.limb((side * 0.2, 1.38), (side * 0.31, 1.18), 0.11, scaled(clothes.top, 0.88))
            self.limb((side * 0.31, 1.18), (side * 0.27, 1.02), 0.09, scaled(clothes.top, 0.88))
        self.torso()
        self.fill(disc((0.0, 1.63), 0.13, 10, 0.8), clothes.skin, 0.1)
        self._helmet((0.0, 1.67))

    def _helmet(self, centre: Point2) -> None:
        top = [(px, py) for px, py in disc(centre, 0.15, 12, 0.85) if py >= centre[1] - 0.03]
        self.fill(top, self.clothes.hair, 0.13)


def rider(canvas: Canvas, stream: Stream, x: float, z: float, foot_height: float, facing: int) -> None:
    """A rider on a two-wheeler at (x, z). `facing`: 1 or -1 seen from the side, 0 from behind or in front."""
    clothes = dress(canvas.palette, stream)
    if stream.chance(0.5):
        clothes = Clothes(clothes.top, clothes.legs, clothes.skin, canvas.palette.colour("cloth", stream), TYRE)
    figure = _Figure(canvas.brush(Label.RIDER, thing=True), x, z, stream.uniform(0.94, 1.06), 1.0, clothes)
    if facing:
        figure.seated(foot_height, stream.uniform(0.2, 1.6), facing)
    else:
        figure.astride(foot_height)

"""The light of a scene: sun, ambient, air, sky, and how it is exposed."""

from __future__ import annotations

from dataclasses import dataclass

from dgss.streets.kinds import Colour


@dataclass(frozen=True)
class Sky:
    """The sky: colour at the top and at the horizon, clouds, and how far it drowns in the air."""

    top: Colour
    horizon: Colour
    cloud: Colour = (1.0, 1.0, 1.0)
    cover: float = -1.0
    drowned: float = 0.0
    scale: float = 0.35
    shift: float = 0.0


@dataclass(frozen=True)
class Light:
    """The light of a scene, linear: sun, ambient, air (its colour and reach in metres), sky.

    exposure and gamma make the picture; texture is the strength of all surface detail; lit_windows the share of
    windows with light behind them, above 0 at night, when lamps shine too.
    """

    sun: Colour
    ambient: Colour
    air: Colour
    reach: float
    sky: Sky
    exposure: float = 1.25
    gamma: float = 1.9
    texture: float = 1.0
    lit_windows: float = 0.0

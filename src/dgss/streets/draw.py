"""One drawn street: image, labels and instances, from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from dgss.errors import DataError, nearest
from dgss.streets.gbuffer import GBuffer, look_up
from dgss.streets.lens import to_bytes
from dgss.streets.looks import TABLE, Look
from dgss.streets.noise import Stream
from dgss.streets.palettes import Palette
from dgss.streets.scene import SUPERSAMPLING, Scene, build_scene
from dgss.streets.shading import Shot, cover_surfaces, illuminate
from dgss.streets.traffic import add_traffic

LOOKS: dict[str, int] = {name: look.index for name, look in TABLE.items()}
"""The looks by name, each with the number that keys its random streams."""
_LOOK_STREAM = 77
_SMALLEST = 16  # pixels


@dataclass(frozen=True)
class Street:
    """A drawn street. image: (H, W, 3) uint8 RGB; labels: (H, W) uint8 train ids; instances: (H, W) uint16.

    Instances: 0 for stuff, 1, 2, ... for each countable thing in view.
    """

    image: NDArray[np.uint8] = field(repr=False)
    labels: NDArray[np.uint8] = field(repr=False)
    instances: NDArray[np.uint16] = field(repr=False)
    look: str
    seed: int


def check_request(look: str, size: tuple[int, int]) -> None:
    """Raises `DataError` for an unknown look or a size (height, width) that holds no picture."""
    if not isinstance(look, str) or look not in LOOKS:
        raise DataError(f"no look of the drawn streets is called {look!r}: {nearest(str(look), LOOKS)}")
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(isinstance(side, Integral) for side in size):
        raise DataError(f"size is {size!r}; it should be (height, width) in whole pixels, such as (128, 256)")
    if min(size) < _SMALLEST:
        raise DataError(
            f"a street of {size[0]} x {size[1]} pixels is too small; ask for {_SMALLEST} x {_SMALLEST} or more"
        )


def draw_street(seed: int = 0, look: str = "game", size: tuple[int, int] = (512, 1024)) -> Street:
    """Draws a street of this look; size = (height, width) in pixels.

    Equal arguments give equal bits. Raises `DataError` for an unknown look, a size that holds no picture, a seed that
    is no whole number from 0.
    """
    check_request(look, size)
    if not isinstance(seed, Integral) or seed < 0:
        raise DataError(f"seed is {seed!r}; it should be a whole number from 0")
    seed, size, style = int(seed), (int(size[0]), int(size[1])), TABLE[look]  # numbers of NumPy would overflow
    layout = Stream(16 * seed + style.index, int(style.palette))
    scene = build_scene(layout, style.palette, size)
    add_traffic(scene, layout)
    canvas = scene.draw(layout, Palette(style.palette))
    buffer = look_up(canvas, scene.road)
    shot = _take(style, scene, buffer, Stream(seed, style.index, _LOOK_STREAM))
    labels = np.ascontiguousarray(buffer.labels[::SUPERSAMPLING, ::SUPERSAMPLING])
    instances = _numbered(buffer.instances[::SUPERSAMPLING, ::SUPERSAMPLING])
    return Street(to_bytes(shot.image), labels, instances, look, seed)


def _take(style: Look, scene: Scene, buffer: GBuffer, stream: Stream) -> Shot:
    """Surfaces, light, picture: each stage with what the look adds to it."""
    shot = Shot(buffer, style.light(stream), scene.sun, scene.lamps, stream)
    cover_surfaces(shot)
    for step in style.surface:
        step(shot)
    illuminate(shot)
    for step in style.radiance:
        step(shot)
    shot.image = shot.averaged(shot.total)
    for step in style.finish:
        step(shot)
    return shot


def _numbered(instances: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Instances in view numbered 1, 2, ... in the order in which they were made; 0 stays 0."""
    seen = np.unique(instances)
    table = np.zeros(int(seen[-1]) + 1, np.uint16)
    table[seen] = np.arange(len(seen)) + (1 if seen[0] else 0)
    return table[instances]

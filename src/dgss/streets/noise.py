"""Random numbers and noise of the drawn streets: the same bits in every process, from whole-number keys alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""Arrays of float32; the type is wider because that of array times Python number is."""
Indices = NDArray[np.intp]
Item = TypeVar("Item")

TILE = 256
"""Edge of a noise tile in texels; a tile repeats, so one unit of u or v is one tile."""
FBM, BLOTCH, FINE, LEAFY = range(4)
"""The four noise tiles: clouds of every size, large stains, grain, clumps."""

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_FOLD = 0xBF58476D1CE4E5B9
_LAST = 0x94D049BB133111EB
_OCTAVE_GAIN = 0.55
_TILE_SHAPES = ((8, 6), (4, 3), (128, 2), (16, 3))  # cells of the coarsest lattice, octaves


def mix(value: int) -> int:
    """One step of splitmix64: a whole number below 2^64 to another."""
    value = (value + _STEP) & _MASK
    value = ((value ^ (value >> 30)) * _FOLD) & _MASK
    value = ((value ^ (value >> 27)) * _LAST) & _MASK
    return value ^ (value >> 31)


class Stream:
    """A stream of random numbers, keyed by whole numbers: equal keys, equal numbers, on every machine."""

    __slots__ = ("_state",)

    def __init__(self, *keys: int) -> None:
        state = 0
        for key in keys:
            state = mix(((state ^ (key & _MASK)) * _FOLD) & _MASK)
        self._state = state

    def bits(self) -> int:
        """The next whole number below 2^64."""
        self._state = (self._state + _STEP) & _MASK
        return mix(self._state)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((self.bits() >> 11) * 2.0**-53)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, each equally likely."""
        return items[int(self.uniform() * len(items))]

    def child(self) -> Stream:
        """A stream of its own for one object, so that its details move nothing else."""
        return Stream(self.bits())

    def many(self, count: int) -> NDArray[np.float64]:
        """The next `count` numbers in [0, 1) at once: (count,)."""
        with np.errstate(over="ignore"):
            state = np.uint64(self._state) + np.uint64(_STEP) * np.arange(1, count + 1, dtype=np.uint64)
            self._state = (self._state + _STEP * count) & _MASK
            value = state + np.uint64(_STEP)
            value = (value ^ (value >> np.uint64(30))) * np.uint64(_FOLD)
            value = (value ^ (value >> np.uint64(27))) * np.uint64(_LAST)
            value ^= value >> np.uint64(31)
        return (value >> np.uint64(11)).astype(np.float64) * 2.0**-53


def cell_hash(x: NDArray[np.generic], y: NDArray[np.generic], key: int | NDArray[np.generic] = 0) -> Floats:
    """A number in [0, 1) for every cell (x, y) of a grid, whole numbers of equal shape; `key` names the grid."""
    with np.errstate(over="ignore"):
        value = np.asarray(x).astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
        value ^= np.asarray(y).astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77)
        value ^= np.asarray(key).astype(np.int64).astype(np.uint32) * np.uint32(0xC2B2AE3D)
        value ^= value >> np.uint32(15)
        value *= np.uint32(0x2C1B3C6D)
        value ^= value >> np.uint32(12)
        value *= np.uint32(0x297A2D39)
        value ^= value >> np.uint32(15)
    found: Floats = (value >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return found


@cache
def tile(kind: int) -> Floats:
    """One of the four noise tiles: (256, 256) float32 in [-1, 1]."""
    cells, octaves = _TILE_SHAPES[kind]
    total = np.zeros((TILE, TILE))
    gain = 1.0
    for octave in range(octaves):
        total += gain * _value_noise(cells << octave, 31 * kind + octave)
        gain *= _OCTAVE_GAIN
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) * (2.0 / (high - low)) - 1.0, np.float32)


def noise(kind: int, u: Floats, v: Floats) -> Floats:
    """The tile `kind` read at (u, v), nearest texel, wrapped: float32 in [-1, 1] of the shape of u."""
    column = (u * TILE).astype(np.int32) & (TILE - 1)
    row = (v * TILE).astype(np.int32) & (TILE - 1)
    texels: Floats = tile(kind)
    return texels.ravel().take(row * TILE + column)


def plane_noise(kind: int, height: int, width: int, x_scale: float, y_scale: float, shift: float = 0.0) -> Floats:
    """The tile `kind` spread over an image, smooth: (height, width); scales are tiles per image, the shift in tiles."""
    x = np.linspace(0.0, x_scale * TILE, width, endpoint=False) + shift * TILE
    y = np.linspace(0.0, y_scale * TILE, height, endpoint=False) + shift * TILE * 0.61
    rows, columns = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    row_part = (y - rows).astype(np.float32)[:, None]
    column_part = (x - columns).astype(np.float32)[None, :]
    source = tile(kind)
    strips = source[rows % TILE] * (1 - row_part) + source[(rows + 1) % TILE] * row_part
    return strips[:, columns % TILE] * (1 - column_part) + strips[:, (columns + 1) % TILE] * column_part


def _value_noise(cells: int, key: int) -> Floats:
    """A hashed lattice of `cells` x `cells`, smoothly joined and periodic: (256, 256) in [0, 1)."""
    rows, columns = np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij")
    lattice = cell_hash(columns, rows, key).astype(np.float64)
    position = np.arange(TILE) * (cells / TILE)
    cell = np.floor(position).astype(np.intp) % cells
    part = position - np.floor(position)
    part = part * part * (3 - 2 * part)
    following = (cell + 1) % cells
    strips = lattice[cell] * (1 - part)[:, None] + lattice[following] * part[:, None]
    joined: Floats = strips[:, cell] * (1 - part) + strips[:, following] * part
    return joined

"""Label spaces: which classes there are, how they are drawn, how one space folds into another.

A label map holds one class number ("train id") a pixel, uint8, with 255 for "ignore".
The tables beside this file name their sources.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from dgss.errors import DataError, nearest

IGNORE = 255
"""The label of a pixel that takes part in no pixel loss and no score."""

LabelMap = NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set, in the order of their numbers.

    name: e.g. `cityscapes19`. names: K class names, as a text tower reads them. colours: K colours, RGB 0 to 255.
    raw_ids: K ids of the classes in the original files. things: which classes are countable.
    sources: for each class the names of the classes of other spaces that fold into it.
    Raises `DataError` where there is no class, more than 255, an empty name, two names that a text tower cannot tell
    apart, or not one of each for every class.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    raw_ids: tuple[int, ...]
    things: tuple[bool, ...]
    sources: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise DataError(f"label space {self.name!r} has {len(self.names)} classes; give 1 to {IGNORE} names")
        first: dict[str, str] = {}
        for number, name in enumerate(self.names):
            read = " ".join(name.lower().split())  # as text towers read it
            if not read:
                raise DataError(f"label space {self.name!r} has no name for class {number}: {name!r}; give it one")
            if read in first:
                raise DataError(
                    f"label space {self.name!r} has the class {read!r} twice, as {first[read]!r} and {name!r}; give "
                    f"each class a name of its own, apart from case and blanks"
                )
            first[read] = name
        for what in ("colours", "raw_ids", "things"):
            if len(getattr(self, what)) != len(self.names):
                count = len(getattr(self, what))
                raise DataError(
                    f"label space {self.name!r} has {len(self.names)} names and {count} {what}; give as many"
                )

    def __len__(self) -> int:
        return len(self.names)

    def fold(self, other: LabelSpace) -> LabelMap:
        """How labels of this space read in `other`: (256,) uint8, `table[label]`; 255 where nothing fits.

        Equal spaces fold by identity. Raises `DataError` where no rule is known.
        """
        table = np.full(256, IGNORE, np.uint8)
        if other.names == self.names:
            table[: len(self)] = np.arange(len(self))
            return table
        if self.name not in other.sources:
            raise DataError(
                f"labels of {self.name!r} cannot be read as {other.name!r}: no rule folds one into the other; "
                f"score on a domain with the classes of {self.name!r}"
            )
        for number, members in enumerate(other.sources[self.name]):
            for member in members:
                table[self.names.index(member)] = number
        return table

    def colour(self, labels: LabelMap) -> NDArray[np.uint8]:
        """Labels (H, W) as a picture (H, W, 3), RGB; ignored pixels are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colours
        return palette[labels]

    def from_raw(self) -> LabelMap:
        """The table from original ids to class numbers: (256,) uint8, 255 for every id that is no class."""
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.raw_ids)] = np.arange(len(self))
        return table


_SPACES = ("cityscapes19", "camvid11")


@cache
def label_space(name: str) -> LabelSpace:
    """A label space of the package by its name: `cityscapes19` or `camvid11`. Raises `DataError` on another."""
    if name not in _SPACES:
        raise DataError(f"no label space is called {name!r}: {nearest(name, _SPACES)}")
    rows = _table(name)
    origins = [key.removeprefix("from_") for key in rows[0] if key.startswith("from_")]
    return LabelSpace(
        name=name,
        names=tuple(row["name"] for row in rows),
        colours=tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows),
        raw_ids=tuple(int(row.get("cityscapes_id", row["train_id"])) for row in rows),
        things=tuple(row.get("thing") == "1" for row in rows),
        sources={origin: tuple(tuple(row[f"from_{origin}"].split(";")) for row in rows) for origin in origins},
    )


@cache
def id_table(name: str) -> dict[int, int]:
    """What the ids in a data set's label files mean, from its own table: id to class number, 255 for no class."""
    return {int(row["id"]): int(row["train_id"]) for row in _table(name)}


def _table(name: str) -> list[dict[str, str]]:
    text = resources.files("dgss").joinpath("tables", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))

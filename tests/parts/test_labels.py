"""Label spaces that make no sense are refused where they are made."""

from __future__ import annotations

import pytest

from dgss.errors import DataError
from dgss.labels import LabelSpace


def space(*names: str, colours: int | None = None) -> LabelSpace:
    count = len(names)
    colour = ((1, 2, 3),) * (count if colours is None else colours)
    return LabelSpace("own", names, colour, tuple(range(count)), (False,) * count)


def test_no_class_and_too_many_are_refused() -> None:
    for names in ((), tuple(f"class {number}" for number in range(256))):
        with pytest.raises(DataError, match=f"'own' has {len(names)} classes; give 1 to 255 names"):
            space(*names)
    assert len(space("road")) == 1


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(DataError, match="'own' has the class 'car' twice"):
        space("road", "car", "sky", "car")


def test_every_class_has_its_colour() -> None:
    with pytest.raises(DataError, match="'own' has 2 names and 3 colours; give as many"):
        space("road", "car", colours=3)

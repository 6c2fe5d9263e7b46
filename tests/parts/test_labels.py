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


@pytest.mark.parametrize("name", ["car", "car ", "Car", " CAR\n", "\tcar"])
def test_a_name_twice_is_refused(name: str) -> None:
    """Text towers lower-case names and drop blanks, so two that differ in no more have the same embedding."""
    with pytest.raises(DataError, match=r"^label space 'own' has the class 'car' twice, as 'car' and .*; give .*$"):
        space("road", "car", "sky", name)
    with pytest.raises(DataError, match="'traffic light' twice"):
        space("traffic light", "Traffic  Light")
    assert len(space("road", "side road", "railroad")) == 3


@pytest.mark.parametrize("name", ["", "  "])
def test_a_class_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"'own' has no name for class 1: {name!r}; give it one"):
        space("road", name)


def test_every_class_has_its_colour() -> None:
    with pytest.raises(DataError, match="'own' has 2 names and 3 colours; give as many"):
        space("road", "car", colours=3)

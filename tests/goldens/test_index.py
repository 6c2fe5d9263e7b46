"""No golden folder is passed over in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.goldens.conftest import system

CALLS = [
    call
    for file in Path(__file__).parent.glob("test_*.py")
    for call in re.findall(r"mark\.golden\(([^)]*)\)", file.read_text(encoding="utf-8"))
]
READ = {name for call in CALLS for name in re.findall(r"\"([\w-]+)\"", call)}


def test_each_folder_is_known_and_read(any_folder: Path) -> None:
    if system(any_folder) not in READ:
        pytest.skip(f"no test reads {system(any_folder)} yet")

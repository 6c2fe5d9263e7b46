from __future__ import annotations

import sys

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--goldens", metavar="DIR", help="run exactly the golden folders in DIR")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests that draw without a generator of their own draw the same each time."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)

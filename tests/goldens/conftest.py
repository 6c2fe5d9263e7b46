"""Which golden folders run: those in `--goldens DIR`, else those beside this file.

A test asks for `golden` (or `golden_folder`) and names by `@pytest.mark.golden("tqdm-clip", ...)` the systems it reads;
each of their folders NAME-s* is one test, with the folder's name in its id.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
sys.path.insert(0, str(DATA))
from load import Golden  # noqa: E402

KNOWN = (
    "clip-vitb16-vision",
    "denseclip-rn50",
    "denseclip-vit",
    "eomt",
    "eva02-clip-vision",
    "hgformer",
    "labels",
    "lamb",
    "mask2former-fullsize",
    "mask2former-swin",
    "metrics",
    "mit",
    "rein-convert",
    "rein-dinov2",
    "rein-eva02",
    "rein-fullsize",
    "shade",
    "slide",
    "soma",
    "tldr",
    "tqdm-clip",
    "tqdm-eva",
    "tqdm-fullsize",
    "tqdm-load",
    "transforms",
    "vltseg-fullsize",
    "vltseg-tiny",
)


def system(folder: Path) -> str:
    """The system a folder belongs to: NAME of NAME-s0, NAME-s1 ..., or NAME itself."""
    name = re.sub(r"-s\d.*$", "", folder.name)
    if name not in KNOWN:
        raise pytest.UsageError(f"{folder} is no golden this project knows; known: NAME-s* of {', '.join(KNOWN)}")
    return name


def folders(config: pytest.Config) -> list[Path]:
    given = config.getoption("--goldens")
    place = Path(given) if given else DATA
    found = sorted(path for path in place.glob("*") if path.is_dir() and path.name[0] not in "._")
    if not found:
        raise pytest.UsageError(f"{place} holds no golden folders")
    return found


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(*systems): the systems whose golden folders a test reads")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is not None and "golden_folder" in metafunc.fixturenames:
        assert set(marker.args) <= set(KNOWN), f"unknown system in {marker.args}"
        chosen = [path for path in folders(metafunc.config) if system(path) in marker.args]
        names = [path.name for path in chosen]
        metafunc.parametrize("golden_folder", chosen, ids=names, indirect=True, scope="module")
    elif "any_folder" in metafunc.fixturenames:
        chosen = folders(metafunc.config)
        metafunc.parametrize("any_folder", chosen, ids=[path.name for path in chosen])


@pytest.fixture(scope="module")
def golden_folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def golden(golden_folder: Path) -> Golden:
    return Golden.open(golden_folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A line the checks look for: a run in which no golden was compared must not pass for one that was."""
    passed = [report.nodeid for report in terminalreporter.stats.get("passed", [])]
    ids = [node.partition("[")[2] for node in passed if "tests/goldens/" in node and "test_index" not in node]
    ran = [path.name for path in folders(config) if any(re.match(rf"{path.name}[-\]]", test) for test in ids)]
    terminalreporter.write_line(f"{len(ran)} goldens ran: {', '.join(ran) or 'none'}")

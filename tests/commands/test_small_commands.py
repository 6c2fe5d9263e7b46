"""The commands that list and examine."""

from __future__ import annotations

import json
import re
import sys
import tomllib
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import Result

import dgss as package
from dgss.cli.common import show_rows
from dgss.recipes.schema import Recipe
from tests.commands.test_train import fails

Command = Callable[..., Result]
ROOT = Path(__file__).parents[2]


def test_recipes_are_listed_shown_and_copied(dgss: Command, tmp_path: Path) -> None:
    listed = dgss("recipes", "list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [r.name for r in package.list_recipes()]
    names = [entry["name"] for entry in json.loads(dgss("recipes", "list", "--json").stdout)]
    assert names == [recipe.name for recipe in package.list_recipes()]
    assert "name: tqdm-mini-streets" in dgss("recipes", "show", "tqdm-mini-streets").stdout
    file = tmp_path / "my own.yaml"
    assert dgss("recipes", "copy", "tqdm-mini-streets", file).exit_code == 0
    assert Recipe.load(file) == Recipe.load("tqdm-mini-streets")
    fails(dgss("recipes", "copy", "tqdm-mini-streets", file), "exists")
    fails(dgss("recipes", "show", "tqdm-mini"), "did you mean")


def test_every_weight_states_its_licence(dgss: Command) -> None:
    assert dgss("models", "list").exit_code == 0
    for model in json.loads(dgss("models", "list", "--json").stdout):
        assert "Apache-2.0" in model["licence"] and model["made"]
    assert [model.name for model in package.list_models()]


def test_every_domain_states_its_licence(dgss: Command) -> None:
    assert "camvid" in dgss("datasets", "list").stdout
    found = json.loads(dgss("datasets", "list", "--json").stdout)
    assert {entry["name"] for entry in found} == {entry.name for entry in package.list_domains()}
    assert all(entry["licence"] and entry["source"] for entry in found)


def test_doctor_is_content_here_and_advises_where_it_is_not(
    dgss: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGSS_CACHE", str(tmp_path / "cache"))
    well = dgss("doctor")
    assert well.exit_code == 0 and "all is well" in well.stdout
    for topic in ("Python", "torch", "device", "cores", "memory", "extras", "cache"):
        assert topic in well.stdout
    (tmp_path / "file").write_text("x", encoding="utf-8")
    monkeypatch.setenv("DGSS_CACHE", str(tmp_path / "file" / "cache"))
    ill = dgss("doctor", "--json")
    assert ill.exit_code == 1
    assert next(entry for entry in json.loads(ill.stdout)["findings"] if entry["serious"])["topic"] == "cache"
    assert "PROBLEM: set DGSS_CACHE" in dgss("doctor").stdout


def findings(dgss: Command) -> dict[str, dict[str, str]]:
    return {entry["topic"]: entry for entry in json.loads(dgss("doctor", "--json").stdout)["findings"]}


def test_doctor_looks_at_every_package_of_the_project(
    dgss: Command, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # mutation: a list of its own; versions compared as texts
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[>=\[]", line)[0].lower().replace("_", "-") for line in project["dependencies"]}
    found = findings(dgss)
    assert names <= found.keys() and not any(found[name]["serious"] for name in names)
    shown = set(f"{found['extras']['value']}, {found['other extras']['value']}".split(", "))
    assert shown - {"none"} == project["optional-dependencies"].keys()

    versions = {"torch": "2.15.0+cu130", "scipy": "1.9.3", "rich": "13.7", "numpy": "2", "dgss": "0.1.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    lines = ["torch>=2.6", "scipy>=1.14", "rich>=13.7.0", "numpy>=2.0", 'ray[data]>=2.40 ; extra == "ray"', "timm"]
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    found = findings(dgss)
    assert {name: found[name]["serious"] for name in ("torch", "scipy", "rich", "numpy", "timm")} == {
        "torch": False,
        "scipy": True,
        "rich": False,
        "numpy": False,
        "timm": True,
    }
    assert found["scipy"]["advice"] == '1.14 or newer is needed: run `pip install --upgrade "scipy>=1.14"`'
    assert found["timm"]["value"] == "missing" and found["timm"]["advice"] == "run `pip install --upgrade timm`"
    assert found["other extras"]["value"] == "ray" and 'pip install "dgss[ray]"' in found["other extras"]["advice"]
    del versions["dgss"]
    assert findings(dgss)["dgss"]["value"] == "not installed"


@pytest.mark.parametrize("broken", [None, types.ModuleType("torch")], ids=["absent", "half there"])
def test_doctor_works_where_torch_does_not(
    dgss: Command, cache: Path, monkeypatch: pytest.MonkeyPatch, broken: types.ModuleType | None
) -> None:  # mutation: only ImportError foreseen
    monkeypatch.setitem(sys.modules, "torch", broken)
    result = dgss("doctor")
    assert result.exit_code == 1 and result.stdout.count("PROBLEM: ") == 1, result.output
    assert "torch or torchvision cannot be loaded (" in result.stdout and "--force-reinstall torch" in result.stdout
    for topic in ("memory", "cores", "current folder"):
        assert topic in result.stdout


def test_lists_fit_a_terminal_and_stay_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("one", "short"), ("another", "word " * 30 + "end")]
    show_rows(rows)
    assert capsys.readouterr().out == f"one      short\nanother  {'word ' * 30}end\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    show_rows(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 4
    assert all(line.startswith(" " * 9 + "word") for line in lines[2:])  # mutation: wrapped to the first column


def test_public_names_are_found_on_first_use() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert package.__version__
    with pytest.raises(AttributeError, match="trian"):
        package.trian  # noqa: B018

"""The commands that list and examine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import dgss as package
from dgss.recipes.schema import Recipe
from tests.commands.test_train import fails

Command = Callable[..., Result]


def test_recipes_are_listed_shown_and_copied(dgss: Command, tmp_path: Path) -> None:
    listed = dgss("recipes", "list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [r.name for r in package.list_recipes()]
    assert [entry["name"] for entry in json.loads(dgss("recipes", "list", "--json").stdout)][-1] == "tqdm-mini-streets"
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


def test_public_names_are_found_on_first_use() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert package.__version__
    with pytest.raises(AttributeError, match="trian"):
        package.trian  # noqa: B018

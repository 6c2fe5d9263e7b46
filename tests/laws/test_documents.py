"""Law 28: what README and docs tell people to type is true. Broken by renaming a flag."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import dgss

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#]+?)(?:#[^)]*)?\)")


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if kind == language
    ]


def command_lines() -> list[Any]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.values[0].splitlines()]
    inline = [
        code
        for page in PAGES
        for code in re.findall(r"`(dgss [a-z][^`]*)`", page.read_text(encoding="utf-8"))
        if "DIR" not in code.split()
    ]
    return sorted({line for line in [*lines, *inline] if line.startswith("dgss ")})


@pytest.mark.parametrize("line", command_lines())
def test_a_command_in_the_docs_is_understood(line: str) -> None:
    from typer.main import get_command

    from dgss.cli import app

    command, arguments = get_command(app), shlex.split(line)[1:]
    context = command.make_context("dgss", list(arguments))
    while hasattr(command, "resolve_command"):
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(str(command.name), list(arguments), parent=context)
    if command.name == "train":
        given = context.params["arguments"] or []
        recipe = [] if not given or "=" in given[0] else given[:1]
        if not recipe or not recipe[0].endswith(".yaml"):
            dgss.Recipe.load(*(recipe or ["tqdm-mini-streets"]), overrides=given[len(recipe) :])


def overrides_in_the_docs() -> list[str]:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    return sorted(set(re.findall(r"`((?:method|training|tower|augment|drawn|inference)\.[\w.]+=[^`]+)`", text)))


@pytest.mark.parametrize("override", overrides_in_the_docs())
def test_a_key_in_the_docs_exists(override: str) -> None:
    dgss.Recipe.load("tqdm-mini-streets", overrides=[override])


@pytest.mark.parametrize("code", blocks("python"))
def test_python_in_the_docs_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training is made short, all else runs as written."""
    monkeypatch.setenv("DGSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    real = dgss.train
    short = ["targets=[]", "drawn.train_images=2", "drawn.score_images=1", "training.steps=1", "training.batch_size=1"]

    def train(recipe: str, **options: Any) -> Any:
        return real(dgss.Recipe.load(recipe, overrides=short), **options)

    monkeypatch.setattr(dgss, "train", train)
    from PIL import Image

    Image.fromarray(dgss.draw_street(0, "photo", (64, 128)).image).save("street.jpg")
    if "runs/demo" in code:
        train("tqdm-mini-streets", out="runs/demo")
    Path("snippet.py").write_text(code, encoding="utf-8")
    runpy.run_path("snippet.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", [recipe.name for recipe in dgss.list_recipes()])
def test_every_recipe_builds_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        method = dgss.Recipe.load(name).build(trained=True)
    assert all(value.is_meta for value in method.parameters())
    assert name in (ROOT / "README.md").read_text() + "".join(page.read_text() for page in PAGES)

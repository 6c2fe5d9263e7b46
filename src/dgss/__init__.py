"""Domain-generalized semantic segmentation: train on one domain, label every pixel in domains never seen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgss.api.convert import convert as convert
    from dgss.api.datasets import list_domains as list_domains
    from dgss.api.doctor import doctor as doctor
    from dgss.api.evaluate import evaluate as evaluate
    from dgss.api.load import load_model as load_model
    from dgss.api.models import list_models as list_models
    from dgss.api.predict import predict as predict
    from dgss.api.train import train as train
    from dgss.errors import DgssError as DgssError
    from dgss.recipes.library import copy_recipe as copy_recipe
    from dgss.recipes.library import list_recipes as list_recipes
    from dgss.recipes.library import show_recipe as show_recipe
    from dgss.recipes.schema import Recipe as Recipe
    from dgss.streets.draw import draw_street as draw_street

# resolved on first use: importing the package loads nothing else
_PUBLIC = {
    "DgssError": "dgss.errors",
    "Recipe": "dgss.recipes.schema",
    "convert": "dgss.api.convert",
    "copy_recipe": "dgss.recipes.library",
    "doctor": "dgss.api.doctor",
    "draw_street": "dgss.streets.draw",
    "evaluate": "dgss.api.evaluate",
    "list_domains": "dgss.api.datasets",
    "list_models": "dgss.api.models",
    "list_recipes": "dgss.recipes.library",
    "load_model": "dgss.api.load",
    "predict": "dgss.api.predict",
    "show_recipe": "dgss.recipes.library",
    "train": "dgss.api.train",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        globals()[name] = value = getattr(import_module(_PUBLIC[name]), name)
        return value
    if name == "__version__":
        from importlib.metadata import version

        return version("dgss")
    raise AttributeError(f"module 'dgss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC, "__version__"]

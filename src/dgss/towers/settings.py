"""The union of the towers' settings, as it stands in recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from dgss.towers.clip import OpenClipSettings
from dgss.towers.shipped import MiniSettings


def _kind(settings: Any) -> Any:
    """The name; a recipe that gives none means the pair that lies in the package."""
    return settings.get("name", "mini") if isinstance(settings, Mapping) else getattr(settings, "name", None)


TowerSettings = Annotated[
    Annotated[MiniSettings, Tag("mini")] | Annotated[OpenClipSettings, Tag("open_clip")], Discriminator(_kind)
]

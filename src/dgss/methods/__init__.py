"""The methods: what is predicted from what, and what is paid for errors. One file a method, one name in the union."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dgss.methods.mask2former import Mask2FormerSettings
from dgss.methods.pixelwise import LinearSettings
from dgss.methods.tqdm import TqdmSettings
from dgss.methods.zero_shot import ZeroShotSettings

MethodSettings = Annotated[
    TqdmSettings | Mask2FormerSettings | LinearSettings | ZeroShotSettings, Field(discriminator="name")
]
"""Any method's settings; `name` in YAML says whose."""

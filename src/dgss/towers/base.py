"""What every image tower shares: normalising its input, and the copy of it that never changes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dgss.errors import DataError
from dgss.interfaces import ImageFeatures, ImageTower

Triple = tuple[float, float, float]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveUnit = Annotated[float, Field(gt=0.0, le=1.0)]


class Normalize(BaseModel):
    """Mean and deviation of the three colour channels, for images in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: tuple[Unit, Unit, Unit] = (0.5, 0.5, 0.5)
    std: tuple[PositiveUnit, PositiveUnit, PositiveUnit] = (0.5, 0.5, 0.5)


class NormalizedTower(ImageTower):
    """An image tower that normalises its input itself, by a mean and a deviation per colour channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Triple, std: Triple) -> None:
        super().__init__()
        # they follow from the settings, so they are no part of a checkpoint
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (image - mean) / std, and 0 where `valid` (B, H, W) is False.

        Padding is set after normalising, hence it is the mean colour, as in the reference programs.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"an image tower reads images of shape (B, 3, H, W), got {tuple(images.shape)}")
        normalised = (images - self.mean) / self.std
        if valid is None:
            return normalised
        if valid.shape != (images.shape[0], *images.shape[2:]):
            raise DataError(
                f"the mask of valid pixels must have shape {(images.shape[0], *images.shape[2:])}, "
                f"got {tuple(valid.shape)}"
            )
        return normalised.masked_fill(~valid[:, None], 0.0)

    def frozen_copy(self, train: bool = False) -> FrozenCopy:
        """A copy that never trains; with `train` its drop path draws while the method trains."""
        return FrozenCopy(self, train)


class FrozenCopy(ImageTower):
    """A copy of a tower as it was at construction: tqdm's reference for its image regulariser, for example.

    It takes no gradient, stands in no optimizer and in no checkpoint (it is made anew from the pretrained tower), and
    stays in eval mode. The copy is kept out of the module's children: they are what `parameters`, `state_dict` and
    `load_state_dict` walk.
    """

    def __init__(self, tower: ImageTower, train: bool = False) -> None:
        super().__init__()
        # a tuple hides the module from torch
        self._hidden = (deepcopy(tower).requires_grad_(False).eval(),)
        self._drop_path_draws = train
        self.channels, self.text_width = tower.channels, tower.text_width
        self.temperature = tower.temperature

    @property
    def tower(self) -> ImageTower:
        """The hidden copy."""
        return self._hidden[0]

    @torch.no_grad()
    def forward(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""
        features: ImageFeatures = self.tower(images, valid)
        return features

    def train(self, mode: bool = True) -> Self:
        """The copy stays in eval mode; its drop path follows `mode` if it was asked to draw."""
        super().train(mode)  # does not reach the hidden copy
        if self._drop_path_draws:
            for module in drop_paths(self.tower):
                module.train(mode)
        return self

    def frozen_copy(self, train: bool = False) -> FrozenCopy:
        """A copy of the copy."""
        return FrozenCopy(self.tower, train)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # torch moves and casts modules through this method alone
        self.tower._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def drop_paths(tower: nn.Module) -> list[nn.Module]:
    """The drop-path modules of a tower: timm's, open_clip's and our own are all called DropPath."""
    return [module for module in tower.modules() if type(module).__name__ == "DropPath"]

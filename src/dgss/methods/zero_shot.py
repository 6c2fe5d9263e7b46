"""zero_shot: what the pair of towers says of every pixel by itself, before any training on a source.

Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP", ECCV 2022, arXiv 2112.01071 (MaskCLIP, Sec. 3.2): the text
embeddings of the class names are the weights of a 1 x 1 convolution over the patches in text space.

Score map S_k = cos(patch, t_k), enlarged; then softmax over the classes of s S_k, s the scale that the pair was trained
with. Of a tower that states none s is 1: the largest score is the same class for any s, only averages over windows and
flips weigh a little differently.
Not implemented: the paper's rewiring of CLIP's last attention, which belongs to a tower, its prompt ensemble (one
template here), key smoothing and prompt denoising (Sec. 3.2), and MaskCLIP+ (Sec. 3.3).
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dgss.errors import RecipeError
from dgss.interfaces import Batch, Method, ParameterGroup, PixelPrediction, Prediction, SampleGenerator, Towers
from dgss.labels import LabelSpace
from dgss.towers.text import FixedPrompts, TowerOutline, score_map


class ZeroShotSettings(BaseModel):
    """What can be chosen: the text around the class names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trains: ClassVar[bool] = False
    name: Literal["zero_shot"] = "zero_shot"
    template: str = Field("a photo of a {}", pattern=r"\{\}", description="text with {} for the class name")

    def misfits(self, towers: TowerOutline, labels: LabelSpace) -> list[str]:
        """What does not go with the towers, one line each, the field to blame first."""
        return towers.unread(labels.names, self.template, contexts=0, init=None)

    def build(self, towers: Towers, labels: LabelSpace, generator: torch.Generator, teacher: bool = True) -> ZeroShot:
        """The model. Nothing of it is new or trains, so `generator` and `teacher` say nothing."""
        TowerOutline.of(towers).check(self, labels)
        return ZeroShot(self, towers, labels)


class ZeroShot(Method):
    """Image tower and text tower, both frozen."""

    def __init__(self, settings: ZeroShotSettings, towers: Towers, labels: LabelSpace) -> None:
        super().__init__()
        assert towers.text is not None
        self.settings, self.labels = settings, labels
        self.tower, self.text = towers.image, towers.text
        self.fixed_prompts = FixedPrompts(self.text, labels.names, settings.template)
        self.scale = nn.Buffer(torch.tensor(self.tower.temperature or 1.0))  # s
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, valid: Tensor | None = None) -> PixelPrediction:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""
        features = self.tower(images, valid)
        text = self.fixed_prompts().expand(len(images), -1, -1)  # (B, K, E)
        return PixelPrediction(features, self.scale * score_map(text, features.dense))

    def losses(self, prediction: Prediction, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        """Raises `RecipeError`: there is nothing to train."""
        raise RecipeError("zero_shot has nothing to train; set training.steps to 0")

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: statistics of a batch norm that move would be training, too."""
        return super().train(False)

    def parameter_groups(self) -> list[ParameterGroup]:
        """None."""
        return []

"""linear: every pixel is classified by itself, without text, queries or masks.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, arXiv 1411.4038, for the
classifier and its loss (Sec. 3 and 4): class scores from a 1 x 1 convolution, enlarged to the image, a softmax loss at
every pixel. The features are those of Mask2Former's pixel decoder (arXiv 2112.01527, Sec. 3.2.2), as they are there.

The control of every method here: what the tower and the pixel decoder give alone.
Not implemented: the paper's skip connections, which the pixel decoder stands for, and its learned enlarging.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dgss.decoder.mask_decoder import published_groups
from dgss.decoder.pixel_decoder import PixelDecoderSettings
from dgss.interfaces import Batch, Method, ParameterGroup, PixelPrediction, Prediction, SampleGenerator, Towers
from dgss.labels import LabelSpace
from dgss.losses.mask_losses import pixel_cross_entropy
from dgss.losses.matching import pixels_by_class


class LinearSettings(PixelDecoderSettings):
    """Everything of the classifier that can be chosen."""

    name: Literal["linear"] = "linear"
    tower_lr_scale: float = Field(default=0.1, ge=0)

    def build(self, towers: Towers, labels: LabelSpace, generator: torch.Generator, teacher: bool = True) -> Linear:
        """The model; its new weights are drawn from `generator`. It has no frozen copy, so `teacher` says nothing."""
        with Method.drawn_from(generator):
            return Linear(self, towers, labels)


class Linear(Method):
    """Image tower, pixel decoder, 1 x 1 convolution."""

    def __init__(self, settings: LinearSettings, towers: Towers, labels: LabelSpace) -> None:
        super().__init__()
        self.settings, self.labels = settings, labels
        self.tower = towers.image
        self.pixel_decoder = settings.pixel_decoder(self.tower.channels)
        self.classifier = nn.Conv2d(settings.width, len(labels), 1)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> PixelPrediction:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""
        features = self.tower(images, valid)
        memory = self.pixel_decoder(features.levels)
        return PixelPrediction(features, self.classifier(memory.mask_features))  # (B, K, H/4, W/4)

    def losses(self, prediction: Prediction, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        """`pixel`: the cross-entropy of the enlarged logits, mean over labelled pixels, in float32; draws nothing."""
        assert isinstance(prediction, PixelPrediction)
        pixels_by_class(batch.labels, len(self.labels))  # refuses what is no label
        with torch.autocast(batch.images.device.type, enabled=False):
            return {"pixel": pixel_cross_entropy(prediction.logits.float(), batch.labels)}

    def parameter_groups(self) -> list[ParameterGroup]:
        """The tower at a lower rate; outside it no decay for norm layers (Mask2Former's rule)."""
        return published_groups(self, self.settings.tower_lr_scale)

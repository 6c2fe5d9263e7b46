"""Mask2Former: learned queries look at a tower's features inside their own masks.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022, arXiv 2112.01527.

The baseline of every method with a mask decoder: the same decoders and losses, any tower, no text. Queries are learned
(Sec. 3.2.1), matched to the classes of an image anew for every prediction (Sec. 3.3), and all of them pay.
Not implemented: instance and panoptic targets.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dgss.decoder.mask_decoder import DecoderSettings, published_groups
from dgss.interfaces import Batch, MaskPrediction, Method, ParameterGroup, Prediction, SampleGenerator, Towers
from dgss.labels import LabelSpace
from dgss.losses.mask_losses import MaskLossSettings, mask_losses, summed
from dgss.losses.matching import hungarian, mask_targets
from dgss.towers.text import TowerOutline


class Mask2FormerSettings(DecoderSettings):
    """Everything of Mask2Former that can be chosen; a weight of 0 leaves the term out."""

    name: Literal["mask2former"] = "mask2former"
    queries: int = Field(default=100, ge=1)
    mask_losses: MaskLossSettings = MaskLossSettings()
    tower_lr_scale: float = Field(default=0.1, ge=0)

    def misfits(self, towers: TowerOutline, labels: LabelSpace) -> list[str]:
        """What does not go with the classes, one line each, the field to blame first."""
        classes = len(labels)
        if self.queries >= classes:
            return []
        return [f"queries = {self.queries}: should be at least {classes}, one for each class of {labels.name}"]

    def build(
        self, towers: Towers, labels: LabelSpace, generator: torch.Generator, teacher: bool = True
    ) -> Mask2Former:
        """The model; its new weights are drawn from `generator`. It has no frozen copy, so `teacher` says nothing."""
        TowerOutline.of(towers).check(self, labels)
        with Method.drawn_from(generator):
            return Mask2Former(self, towers, labels)


class Mask2Former(Method):
    """Image tower, pixel decoder, mask decoder."""

    def __init__(self, settings: Mask2FormerSettings, towers: Towers, labels: LabelSpace) -> None:
        super().__init__()
        self.settings, self.labels = settings, labels
        self.tower = towers.image
        self.pixel_decoder = settings.pixel_decoder(self.tower.channels)
        self.query_content = nn.Parameter(torch.randn(settings.queries, settings.width))
        self.query_positions = nn.Parameter(torch.randn(settings.queries, settings.width))
        self.mask_decoder = settings.mask_decoder(len(labels))

    def forward(self, images: Tensor, valid: Tensor | None = None) -> MaskPrediction:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""
        features = self.tower(images, valid)
        memory = self.pixel_decoder(features.levels)
        queries = self.query_content.expand(len(images), -1, -1)  # (B, Q, D)
        masks, classes = self.mask_decoder(queries, self.query_positions, memory)
        return MaskPrediction(features, masks, classes)

    def losses(self, prediction: Prediction, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        """`class`, `mask`, `dice` of the last prediction, and `*.earlier` of all others."""
        assert isinstance(prediction, MaskPrediction)
        settings = self.settings.mask_losses
        weights = (settings.class_weight, settings.mask_weight, settings.dice_weight)
        match = hungarian(weights, settings.points, generator)
        targets = mask_targets(batch.labels, len(self.labels))
        return summed(mask_losses(prediction, targets, match, settings, generator))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The tower at a lower rate; outside it no decay for norm layers and embeddings (the published rule)."""
        embeddings = ("query_content", "query_positions", "mask_decoder.level_embed")
        return published_groups(self, self.settings.tower_lr_scale, embeddings)

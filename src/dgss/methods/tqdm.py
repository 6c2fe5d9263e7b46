"""tqdm: the names of the classes are the queries of a mask decoder.

Pak et al., "Textual Query-Driven Mask Transformer for Domain Generalized Segmentation", ECCV 2024, arXiv 2407.09033;
details by its program, ByeongHyunPak/tqdm @ 75168af (the file names below are of it).

New on top of Mask2Former: (1) queries come from the text embeddings of the class names, query k answers for class k;
(2) text-to-pixel attention in every layer of the pixel decoder; (3) three regularisers keep text, pixels and image
where the pretrained towers had them. Ours alone: `mask_prior`.
Not implemented: several queries per class, which the program's matcher knows and its decoder cannot run.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, mse_loss, normalize

from dgss.decoder.mask_decoder import DecoderSettings
from dgss.interfaces import Batch, MaskPrediction, Method, ParameterGroup, Prediction, SampleGenerator, Towers
from dgss.labels import LabelSpace
from dgss.losses.mask_losses import MaskLossSettings, mask_losses, pixel_cross_entropy, summed
from dgss.losses.matching import fixed, mask_targets
from dgss.towers.text import (
    ContextDecoder,
    ContextDecoderSettings,
    FixedPrompts,
    LearnedPrompts,
    TowerOutline,
    score_map,
)

GROUPS = {"tower.": "tower", "norm": "norm", "query_positions": "embedding", "level_embed": "embedding"}
"""Part of a parameter's name -> its group; the first that fits."""


class TqdmSettings(DecoderSettings):
    """Everything of tqdm that can be chosen; a weight of 0 leaves the term out."""

    name: Literal["tqdm"] = "tqdm"
    pixel_ffn: int = Field(default=2048, ge=1)  # the program's recipes say 1024, the published weights have 2048
    contexts: int = Field(default=5, ge=0)  # learned prompt tokens; 0: the template's embeddings instead
    context_init: str | None = Field(default=None, pattern=r"\S", description="a phrase or null")
    template: str = Field("a clean origami of a {}", pattern=r"\{\}", description="text with {} for the class name")
    context_decoder: ContextDecoderSettings | None = ContextDecoderSettings()
    text_queries: bool = True  # False: learned queries
    text_attention: bool = True
    mask_prior: Literal["none", "score_map"] = "none"
    mask_losses: MaskLossSettings = MaskLossSettings()
    language_weight: float = Field(default=1.0, ge=0)
    vision_language_weight: float = Field(default=1.0, ge=0)
    vision_weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=0.07, gt=0)
    # "train": the training loop of the program puts the frozen tower back into train mode, so its drop path draws
    frozen_copy: Literal["eval", "train"] = "eval"
    pixel_mean: Literal["labelled", "all"] = "labelled"  # "all": the program divides L_reg^VL by ignored pixels too
    tower_lr_scale: float = Field(default=0.1, ge=0)
    # False: as in the program's Cityscapes recipe; its GTA5 recipes decay the two embeddings
    embedding_decay: bool = True

    def misfits(self, towers: TowerOutline, labels: LabelSpace) -> list[str]:
        """What goes with neither the other settings, the towers nor the classes: a line each, the field first."""
        prior, phrase = self.mask_prior == "score_map", self.context_init
        used = self.text_queries or self.text_attention or self.vision_language_weight or prior
        cold, still = prior and not towers.temperature, self.frozen_copy == "train" and not towers.drop_path
        faults = {
            "text_queries = false: nor does any other part use text; choose the method mask2former": not used,
            f"context_init = {phrase!r}: starts contexts, of which are 0; set it to null": phrase and not self.contexts,
            "mask_prior = 'score_map': needs a tower with a temperature (mini, pretrained); set it to none": cold,
            "frozen_copy = 'train': lets drop path draw, but the tower has none; set it to eval": still,
        }
        unread = towers.unread(labels.names, self.template, self.contexts, phrase)
        return [fault for fault, holds in faults.items() if holds] + unread

    def build(self, towers: Towers, labels: LabelSpace, generator: torch.Generator, teacher: bool = True) -> Tqdm:
        """The model; its new weights are drawn from `generator`. teacher: False where it will not be trained."""
        TowerOutline.of(towers).check(self, labels)
        with Method.drawn_from(generator):
            return Tqdm(self, towers, labels, teacher)


@dataclass(frozen=True, kw_only=True)
class TqdmPrediction(MaskPrediction):
    """text: the class embeddings T (B, K, E), not normalised. score_map: S (B, K, h, w)."""

    text: Tensor
    score_map: Tensor


class Tqdm(Method):
    """Image tower and frozen text tower, context decoder, pixel decoder with text, mask decoder."""

    def __init__(self, settings: TqdmSettings, towers: Towers, labels: LabelSpace, teacher: bool) -> None:
        super().__init__()
        assert towers.text is not None
        self.settings, self.labels = settings, labels
        classes, embedding, width = len(labels), towers.text.width, settings.width
        self.tower, self.text = towers.image, towers.text.requires_grad_(False)
        learned = (labels.names, settings.contexts, settings.context_init)
        self.prompts = LearnedPrompts(self.text, *learned) if settings.contexts else None
        self.fixed_prompts = FixedPrompts(self.text, labels.names, settings.template)
        looks = settings.context_decoder
        self.context_decoder = None if looks is None else ContextDecoder(embedding, looks)
        text_width = embedding if settings.text_attention else None
        self.pixel_decoder = settings.pixel_decoder(self.tower.channels, text_width, classes)
        if settings.text_queries:
            self.query_projection = nn.Sequential(nn.Linear(embedding, width), nn.ReLU(), nn.Linear(width, width))
        else:
            self.query_content = nn.Parameter(torch.randn(classes, width))
        self.query_positions = nn.Parameter(torch.randn(classes, width))
        self.mask_decoder = settings.mask_decoder(classes)
        if settings.mask_prior == "score_map":  # the first answer is then the prior itself: query k is for class k
            self.mask_decoder.start_from_zero()
            self.class_prior = nn.Buffer(6.0 * torch.eye(classes, classes + 1))  # p of class k near .95
            self.prior_scale = nn.Buffer(torch.tensor(self.tower.temperature))  # s, as it was in this training
        copied = teacher and settings.vision_weight > 0 and self.tower.embedding_trains
        self.teacher = self.tower.frozen_copy(settings.frozen_copy == "train") if copied else None

    def forward(self, images: Tensor, valid: Tensor | None = None) -> TqdmPrediction:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""
        features = self.tower(images, valid)
        text = self.class_embeddings(features.pooled, features.dense)  # T: (B, K, E)
        memory = self.pixel_decoder(features.levels, text if self.settings.text_attention else None)
        learned = not self.settings.text_queries
        queries = self.query_content.expand(len(text), -1, -1) if learned else self.query_projection(text)  # (B, K, D)
        scores = score_map(text, features.dense)  # S (tqdm_clip.py)
        prior = self.mask_prior(scores, memory.mask_features) if self.settings.mask_prior == "score_map" else None
        masks, classes = self.mask_decoder(queries, self.query_positions, memory, prior)
        if prior is not None:
            classes = tuple(logits.float() + self.class_prior for logits in classes)
        # the program enlarges the class scores, not the masks (tqdm_head.py, semantic read-out)
        return TqdmPrediction(features, masks, classes, resize_first=False, text=text, score_map=scores)

    def class_embeddings(self, pooled: Tensor, dense: Tensor) -> Tensor:
        """T = t + gamma * context decoder(t; image) (tqdm_clip.py, after DenseCLIP): (B, K, E)."""
        text: Tensor = self.fixed_prompts() if self.prompts is None else self.prompts()  # t: (K, E)
        if self.context_decoder is not None:
            text = self.context_decoder(text, pooled, dense)
        return text.expand(len(dense), -1, -1)

    def mask_prior(self, scores: Tensor, like: Tensor) -> Tensor:
        """Ours: logit(p_k), p = softmax over the classes of s cos(pixel, T_k), at the size of `like`; float32."""
        logits = (self.prior_scale * scores).softmax(1).logit(eps=1e-4)  # within +- 9.2
        return interpolate(logits, like.shape[2:], mode="bilinear", align_corners=False)

    def losses(self, prediction: Prediction, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        """`class`, `mask`, `dice` of the last prediction, `*.earlier` of all others, and the regularisers."""
        assert isinstance(prediction, TqdmPrediction)
        settings = self.settings
        targets = mask_targets(batch.labels, len(self.labels))
        losses = summed(mask_losses(prediction, targets, fixed, settings.mask_losses, generator))
        with torch.autocast(batch.images.device.type, enabled=False):
            if settings.language_weight:
                losses["language"] = settings.language_weight * self.language_loss(prediction.text.float())
            if settings.vision_language_weight:
                pixel_loss = self.pixel_loss(prediction.score_map, batch.labels)
                losses["vision_language"] = settings.vision_language_weight * pixel_loss
        if self.teacher is not None:
            losses["vision"] = settings.vision_weight * self.vision_loss(prediction, batch)
        return losses

    def language_loss(self, text: Tensor) -> Tensor:
        """L_reg^L (paper, tqdm_clip.py): class k stays nearest to its own frozen embedding; cosines, no temperature."""
        cosines = normalize(text, dim=2) @ self.fixed_prompts().float().T  # (B, K, K)
        wanted = torch.arange(len(self.labels), device=text.device).expand(len(text), -1)
        return cross_entropy(cosines.flatten(0, 1), wanted.flatten())

    def pixel_loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """L_reg^VL (paper, identity_head.py): every pixel's label from S / temperature. scores: (B, K, h, w)."""
        return pixel_cross_entropy(scores / self.settings.temperature, labels, self.settings.pixel_mean == "all")

    def vision_loss(self, prediction: TqdmPrediction, batch: Batch) -> Tensor:
        """L_reg^V (paper, tqdm_clip.py): the image embedding stays where the frozen tower has it; squared error."""
        pooled = prediction.features.pooled
        assert self.teacher is not None and pooled is not None
        frozen: Tensor = self.teacher(batch.images, batch.valid).pooled
        return mse_loss(pooled.float(), frozen.float())

    def train(self, mode: bool = True) -> Self:
        """The frozen text tower stays in eval mode."""
        super().train(mode)
        self.text.eval()
        return self

    def parameter_groups(self) -> list[ParameterGroup]:
        """The tower at a lower rate; outside it no decay where the name says norm (the program's rule, by names)."""
        settings, found = self.settings, defaultdict[str, list[tuple[str, nn.Parameter]]](list)
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                group = next((group for part, group in GROUPS.items() if part in name), "head")
                found[group].append((name, parameter))
        decay = float(settings.embedding_decay)
        scales = {"tower": (settings.tower_lr_scale, 1.0), "norm": (1.0, 0.0), "embedding": (1.0, decay)}
        return [ParameterGroup(key, tuple(rows), *scales.get(key, (1.0, 1.0))) for key, rows in found.items()]

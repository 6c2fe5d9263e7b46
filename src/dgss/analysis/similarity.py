"""What text finds in an image: similarity maps of free phrases, masks of single queries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dgss.errors import DataError, RecipeError
from dgss.interfaces import ImageTower, MaskPrediction, Method, TextTower, Towers
from dgss.towers.text import FixedPrompts, score_map


@torch.no_grad()
def similarity(
    source: Towers | Method, images: Tensor, texts: Sequence[str], template: str = "a photo of a {}"
) -> Tensor:
    """Cosines in [-1, 1] of every pixel with every phrase, (B, K, H, W), enlarged bilinearly from the tower's cells.

    source: a pair of towers, or a method that keeps its own as `tower` and `text`, as tqdm does; in eval mode.
    images: (B, 3, H, W) float in [0, 1], RGB. texts: K phrases. template: what is read of each, `{}` is the phrase.
    Raises `RecipeError` where there is no text tower, `DataError` where there is no phrase or one is too long.
    """
    image: object = source.image if isinstance(source, Towers) else getattr(source, "tower", None)
    text: object = getattr(source, "text", None)
    if not isinstance(image, ImageTower) or not isinstance(text, TextTower):
        raise RecipeError("similarity to text needs an image tower and its text tower; take the mini model's or a tqdm")
    if isinstance(texts, str) or not texts:
        raise DataError(f"texts is {texts!r}; it should be a list of at least one phrase")
    embeddings = FixedPrompts(text, texts, template)()  # (K, E)
    cosines = score_map(embeddings.expand(len(images), -1, -1), image(images).dense)
    return interpolate(cosines, images.shape[2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def query_masks(method: Method, images: Tensor, query: int, layer: int = -1) -> Tensor:
    """The mask of one query, (B, H, W) in [0, 1], enlarged bilinearly.

    method: one with a mask decoder, in eval mode. images: (B, 3, H, W) float in [0, 1], RGB. query: its number from 0;
    in tqdm query k answers for class k, made from text or learned. layer: 0 before the decoder's first layer, -1 after
    its last. Raises `RecipeError` for a method without masks, `DataError` for a query that there is not.
    """
    prediction = method(images)
    if not isinstance(prediction, MaskPrediction):
        raise RecipeError(f"{type(method).__name__} has no queries with masks; take a run of tqdm or mask2former")
    masks = prediction.mask_logits[layer]  # (B, Q, H/4, W/4)
    if not 0 <= query < masks.shape[1]:
        raise DataError(f"there is no query {query}; they count from 0 to {masks.shape[1] - 1}")
    probabilities = masks[:, query, None].float().sigmoid()
    return interpolate(probabilities, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]

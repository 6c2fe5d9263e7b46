"""Similarity of pixels to phrases, and the masks of single queries, against loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity, interpolate

from dgss.analysis.similarity import query_masks, similarity
from dgss.errors import DataError, RecipeError
from dgss.labels import label_space
from dgss.towers.shipped import MiniSettings
from tests.parts.standin import ColourMethod
from tests.parts.test_clarity import small_tqdm
from tests.parts.tiny import tiny_batch, tiny_towers

PHRASES = ["car", "pickup truck", "sky"]


@pytest.mark.parametrize("trained", [False, True], ids=["towers", "tqdm"])
def test_cosines_are_those_of_a_loop(trained: bool) -> None:  # mutation: template left out, embeddings not unit
    source = small_tqdm() if trained else tiny_towers()
    towers = (source.tower, source.text) if trained else (source.image, source.text)
    images = tiny_batch((32, 48)).images
    with torch.no_grad():
        dense = towers[0].eval()(images).dense  # (2, E, 8, 12)
        ids = towers[1].tokens([f"a drawing of a {phrase}" for phrase in PHRASES])
        texts = towers[1].encode(towers[1].embed(ids), ids)
    cosines = torch.zeros(2, 3, 8, 12)
    for b, k, r, c in torch.cartesian_prod(*(torch.arange(n) for n in cosines.shape)).tolist():
        cosines[b, k, r, c] = cosine_similarity(dense[b, :, r, c], texts[k], dim=0)
    found = similarity(source, images, PHRASES, "a drawing of a {}")
    torch.testing.assert_close(found, interpolate(cosines, (32, 48), mode="bilinear", align_corners=False))
    assert not found.requires_grad


def test_a_trained_tower_answers_for_itself() -> None:
    """The method's own image tower is asked, not the one it started from."""
    method, images = small_tqdm(), tiny_batch().images
    before = similarity(method, images, PHRASES)
    with torch.no_grad():
        method.tower.projection.weight.mul_(torch.rand(12, 1, 1, 1))
    assert not torch.allclose(similarity(method, images, PHRASES), before)


def test_the_shipped_towers_find_phrases_of_any_size() -> None:
    towers = MiniSettings().build()
    towers.image.eval()
    found = similarity(towers, torch.rand(1, 3, 40, 70, generator=torch.Generator().manual_seed(0)), ["car", "sky"])
    assert found.shape == (1, 2, 40, 70)
    assert found.abs().max() <= 1


def test_without_text_or_phrases_there_is_no_similarity() -> None:
    images = tiny_batch().images
    for source in (tiny_towers(text=False), ColourMethod(label_space("cityscapes19"))):
        with pytest.raises(RecipeError, match="text tower"):
            similarity(source, images, PHRASES)
    for texts in ([], "car"):
        with pytest.raises(DataError, match="at least one phrase"):
            similarity(tiny_towers(), images, texts)


@pytest.mark.parametrize("learned", [False, True], ids=["text queries", "learned queries"])
def test_a_query_has_a_mask_after_every_layer(learned: bool) -> None:  # mutation: enlarged before the sigmoid
    method, images = small_tqdm(text_queries=not learned), tiny_batch((32, 48)).images
    with torch.no_grad():
        logits = method(images).mask_logits
    assert len(logits) == 3
    for layer in range(3):
        small = 1 / (1 + torch.exp(-logits[layer][:, 13:14]))
        expected = interpolate(small, (32, 48), mode="bilinear", align_corners=False)[:, 0]
        torch.testing.assert_close(query_masks(method, images, 13, layer), expected)
    torch.testing.assert_close(query_masks(method, images, 13), query_masks(method, images, 13, 2))


def test_queries_that_there_are_not_are_named() -> None:
    images = tiny_batch().images
    for query in (19, -1):
        with pytest.raises(DataError, match=f"no query {query}; they count from 0 to 18"):
            query_masks(small_tqdm(), images, query)
    with pytest.raises(RecipeError, match="no queries"):
        query_masks(ColourMethod(label_space("cityscapes19")).eval(), images, 0)

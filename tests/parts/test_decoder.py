from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from dgss.decoder.mask_decoder import DecoderSettings, MaskDecoder, attention_mask, shrink
from dgss.decoder.pixel_decoder import PixelDecoder, PixelMemory


def memory_of(
    sizes: tuple[tuple[int, int], ...] = ((2, 2), (3, 4), (5, 7)), b: int = 2, width: int = 16
) -> PixelMemory:
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(b, width, h, w, generator=draw) for h, w in (*sizes, (10, 14))]
    return PixelMemory(maps[-1], tuple(maps[:-1]))


def queries_of(count: int = 5, b: int = 2, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(b, count, width, generator=draw), torch.randn(count, width, generator=draw)


@pytest.mark.parametrize("size", [(8, 12), (4, 6), (2, 3), (16, 24), (5, 7), (8, 6), (1, 1), (16, 12)], ids=str)
def test_shrinking_is_bilinear_without_antialias(size: tuple[int, int]) -> None:
    """Broken by averaging whole cells, or by the first two rows of each instead of the middle ones."""
    x = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(shrink(x, size), interpolate(x, size, mode="bilinear", align_corners=False))


def test_attention_mask_is_the_resized_mask_thresholded() -> None:
    """The references resize each layer's mask logits; resized features must give the same mask."""
    memory, (queries, _) = memory_of(), queries_of()
    prior = torch.randn(2, 5, 10, 14)
    logits = torch.einsum("bqc,bchw->bqhw", queries, memory.mask_features) + prior
    for size in ((2, 2), (3, 4), (5, 7)):
        small = interpolate(logits, size, mode="bilinear", align_corners=False).flatten(2)
        blocked = small.sigmoid() < 0.5
        blocked[blocked.all(2)] = False
        found = attention_mask(queries, shrink(memory.mask_features, size), shrink(prior, size))
        clear = small.abs() > 1e-5
        assert torch.equal(found[clear], ~blocked[clear])


def test_an_empty_mask_may_look_everywhere() -> None:
    embedding, features = -torch.ones(1, 2, 3), torch.ones(1, 3, 2, 2)
    assert attention_mask(embedding, features, None).all()
    features[..., 0, 0] = -1.0
    assert attention_mask(embedding, features, None).sum(2).tolist() == [[1, 1]]


def test_mask_decoder_predicts_before_and_after_each_layer() -> None:
    decoder, memory, (queries, positions) = MaskDecoder(16, 2, 4, 24, 6), memory_of(), queries_of()
    masks, classes = decoder(queries, positions, memory)
    assert [m.shape for m in masks] == [(2, 5, 10, 14)] * 5
    assert [c.shape for c in classes] == [(2, 5, 7)] * 5
    # the first prediction has seen no memory
    embedding = decoder.mask_embed(decoder.post_norm(queries))
    torch.testing.assert_close(masks[0], torch.einsum("bqc,bchw->bqhw", embedding, memory.mask_features))


def test_mask_decoder_follows_permuted_queries() -> None:
    """Law 3. Broken by anything that depends on a query's number."""
    decoder, memory, (queries, positions) = MaskDecoder(16, 2, 4, 24, 6), memory_of(), queries_of()
    order = torch.tensor([3, 0, 4, 1, 2])
    masks, classes = decoder(queries, positions, memory)
    turned_masks, turned_classes = decoder(queries[:, order], positions[order], memory)
    torch.testing.assert_close(turned_masks[-1], masks[-1][:, order], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(turned_classes[-1], classes[-1][:, order], atol=1e-5, rtol=1e-5)


def test_a_prior_stands_in_every_prediction_and_guides_where_queries_look() -> None:
    decoder, memory, (queries, positions) = MaskDecoder(16, 2, 3, 24, 6), memory_of(), queries_of()
    for parameter in decoder.mask_embed[-1].parameters():
        torch.nn.init.zeros_(parameter)
    prior = 3 * torch.randn(2, 5, 10, 14)
    masks, classes = decoder(queries, positions, memory, prior)
    assert all(torch.equal(mask, prior) for mask in masks)
    other = decoder(queries, positions, memory, -prior)[1]
    assert torch.equal(classes[0], other[0]) and not torch.allclose(classes[1], other[1])


@pytest.mark.parametrize("sizes", [((9, 13), (5, 7), (3, 4), (2, 2)), ((8, 8), (4, 4), (2, 2), (1, 1))], ids=str)
@pytest.mark.parametrize("text_width", [None, 6])
def test_pixel_decoder_answers_at_the_sizes_it_is_given(
    sizes: tuple[tuple[int, int], ...], text_width: int | None
) -> None:
    channels = (8, 12, 16, 20)
    decoder = PixelDecoder(channels, 16, 2, 2, 24, 4, text_width, 3, norm_groups=4)
    levels = [torch.randn(2, c, h, w) for c, (h, w) in zip(channels, sizes, strict=True)]
    answer = decoder(levels, None if text_width is None else torch.randn(2, 3, text_width))
    assert answer.mask_features.shape == (2, 16, *sizes[0])
    assert [m.shape for m in answer.memories] == [(2, 16, *size) for size in reversed(sizes[1:])]


def test_pixel_decoder_without_text_is_that_of_mask2former() -> None:
    decoder = PixelDecoder((4,) * 4, 16, 2, 2, 24, 4, norm_groups=4)
    assert not [name for name, _ in decoder.named_parameters() if "text" in name]


def test_text_attention_reads_the_text_but_not_its_order() -> None:
    """Pixels see a set: text and its positions permuted together change nothing."""
    decoder = PixelDecoder((4,) * 4, 16, 2, 2, 24, 4, 6, 3, norm_groups=4)
    levels, text = [torch.randn(1, 4, s, s) for s in (8, 4, 2, 1)], torch.randn(1, 3, 6)
    before = decoder(levels, text).mask_features
    assert not torch.allclose(before, decoder(levels, text + 1).mask_features)
    assert decoder.text_positions is not None
    with torch.no_grad():
        decoder.text_positions.copy_(decoder.text_positions[[2, 0, 1]])
    torch.testing.assert_close(decoder(levels, text[:, [2, 0, 1]]).mask_features, before, atol=1e-5, rtol=1e-5)


def test_impossible_sizes_are_refused_with_the_reason() -> None:
    for wrong, word in (
        ({"heads": 3}, "heads"),
        ({"norm_groups": 48}, "norm_groups"),
        ({"width": 34, "heads": 2}, "of"),
    ):
        with pytest.raises(ValueError, match=word):
            DecoderSettings(**wrong)

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dgss.decoder.attention import (
    Attention,
    DeformableAttention,
    core_by_bag,
    core_by_grid,
    deformable_core,
    reference_points,
    sine_positions,
)

SHAPES = ((2, 3), (4, 5), (7, 1))
FORMS = pytest.mark.parametrize("core", [core_by_bag, core_by_grid])
Core = Callable[..., Tensor]


def inputs(
    shapes: tuple[tuple[int, int], ...] = SHAPES, kind: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, places (some outside the map) and weights: B 2, 3 heads of 4 channels, 5 queries, 2 points."""
    draw = torch.Generator().manual_seed(seed)
    tokens = sum(h * w for h, w in shapes)
    value = torch.randn(2, tokens, 3, 4, generator=draw, dtype=kind)
    locations = torch.rand(2, 5, 3, len(shapes), 2, 2, generator=draw, dtype=kind) * 1.4 - 0.2
    weights = torch.rand(2, 5, 3, len(shapes), 2, generator=draw, dtype=kind)
    return value, locations, weights


def by_loops(value: Tensor, shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor) -> Tensor:
    b, _, heads, d = value.shape
    out = torch.zeros(b, locations.shape[1], heads, d)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in locations.shape[:5])).tolist():
        image, query, head, level, point = index
        h, w = shapes[level]
        start = sum(i * j for i, j in shapes[:level])
        x, y = (locations[image, query, head, level, point] * torch.tensor([w, h]) - 0.5).tolist()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < h and 0 <= column < w:
                    share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[image, query, head, level, point]
                    out[image, query, head] += share * value[image, start + row * w + column, head]
    return out.flatten(2)


@FORMS
def test_deformable_core_equals_loops(core: Core) -> None:
    """Broken by a shift of half a cell, or by repeating the border instead of zeros."""
    value, locations, weights = inputs()
    torch.testing.assert_close(
        core(value, SHAPES, locations, weights), by_loops(value, SHAPES, locations, weights), atol=2e-6, rtol=0
    )


@FORMS
def test_deformable_core_equals_loops_at_and_beyond_the_border(core: Core) -> None:
    value, locations, weights = inputs()
    places = torch.tensor([0.0, 1.0, -0.5, 1.5, 0.5, 1e9])
    locations = places[torch.randint(0, 6, locations.shape, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(
        core(value, SHAPES, locations, weights), by_loops(value, SHAPES, locations, weights), atol=2e-6, rtol=0
    )


@FORMS
def test_deformable_core_has_right_derivatives(core: Core) -> None:
    """Broken by a wrong sign in one bilinear weight's derivative."""
    shapes = ((2, 3), (3, 2))
    value, locations, weights = inputs(shapes, torch.float64)
    given = tuple(x.contiguous().requires_grad_() for x in (value[:1], locations[:1, :2], weights[:1, :2]))
    assert torch.autograd.gradcheck(lambda *args: core(args[0], shapes, *args[1:]), given)


def test_both_forms_have_the_same_gradients() -> None:
    answers = []
    for core in (core_by_bag, core_by_grid):
        given = [x.requires_grad_() for x in inputs()]
        out = core(given[0], SHAPES, *given[1:])
        out.square().sum().backward()
        answers.append([x.grad for x in given])
    for bag, grid in zip(*answers, strict=True):
        torch.testing.assert_close(bag, grid, atol=2e-5, rtol=1e-5)


def test_places_that_are_no_numbers_end_in_a_value_that_is_none() -> None:
    value, locations, weights = inputs()
    locations[0, 0] = torch.nan
    out = deformable_core(value, SHAPES, locations, weights)
    assert out[0, 0].isnan().all() and out[1].isfinite().all()


def test_deformable_attention_starts_as_published() -> None:
    """Head i looks in direction 2 pi i / heads, point p at distance p + 1, all points with equal weight."""
    layer = DeformableAttention(8, 4, levels=2, points=3)
    offsets = layer.sampling_offsets.bias.detach().view(4, 2, 3, 2)
    for head, direction in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        for point in range(3):
            wanted = torch.tensor(direction, dtype=torch.float32) * (point + 1)
            torch.testing.assert_close(offsets[head, :, point], wanted.expand(2, 2), atol=1e-6, rtol=0)
    assert not layer.sampling_offsets.weight.any() and not layer.attention_weights.weight.any()


def test_deformable_attention_looks_at_its_own_place_and_offsets_count_cells() -> None:
    """One head, one point, one level, all projections the identity: the answer is the shifted map."""
    layer = DeformableAttention(4, 1, levels=1, points=1)
    for part in (layer.value, layer.out):
        nn.init.eye_(part.weight)
    nn.init.constant_(layer.sampling_offsets.bias, 0.0)
    with torch.no_grad():
        layer.sampling_offsets.bias[0] = 1.0  # one cell to the right
        image = torch.randn(1, 15, 4)
        out = layer(image, image, [(3, 5)], reference_points([(3, 5)])).view(3, 5, 4)
    torch.testing.assert_close(out[:, :4], image.view(3, 5, 4)[:, 1:], atol=1e-5, rtol=0)
    assert out[:, 4].abs().max() < 1e-5


def test_attention_equals_that_of_torch() -> None:
    """Broken by mixing up the three parts of the weight, or the meaning of the mask."""
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.in_weight)
        theirs.in_proj_bias.copy_(nn.init.normal_(ours.in_bias))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    query, key, value = torch.randn(2, 4, 12), torch.randn(2, 6, 12), torch.randn(2, 6, 12)
    allowed = torch.rand(2, 4, 6) > 0.4
    allowed[..., 0] = True
    blocked = (~allowed).repeat_interleave(3, 0)
    wanted = theirs(query, key, value, attn_mask=blocked, need_weights=False)[0]
    torch.testing.assert_close(ours(query, key, value, allowed), wanted, atol=1e-5, rtol=0)


def test_attention_starts_like_that_of_torch() -> None:
    ours, theirs = Attention(64, 4), nn.MultiheadAttention(64, 4)
    for mine, reference in (
        (ours.in_weight, theirs.in_proj_weight),
        (ours.in_bias, theirs.in_proj_bias),
        (ours.out.weight, theirs.out_proj.weight),
        (ours.out.bias, theirs.out_proj.bias),
    ):
        assert mine.std().item() == pytest.approx(reference.std().item(), rel=0.05)


def test_sine_positions_are_the_formula() -> None:
    h, w, width = 3, 5, 8
    found = sine_positions(h, w, width).view(h, w, width)
    for row in range(h):
        for column in range(w):
            for channel in range(width):
                place, size = (row, h) if channel < 4 else (column, w)
                k = channel % 4
                angle = (place + 1) / (size + 1e-6) * 2 * math.pi / 10000 ** (2 * (k // 2) / 4)
                wanted = math.sin(angle) if k % 2 == 0 else math.cos(angle)
                assert float(found[row, column, channel]) == pytest.approx(wanted, abs=2e-6)


def test_reference_points_are_the_middles_of_cells() -> None:
    points = reference_points([(1, 2), (2, 1)])
    assert points.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]

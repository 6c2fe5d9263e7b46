"""Pixel semantic clarity: the one-pass sums against loops, known values, and the hooks that read the layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dgss.analysis.clarity import Clarity, cell_labels, layer_maps
from dgss.errors import DataError, RecipeError
from dgss.labels import IGNORE, label_space
from dgss.methods.mask2former import Mask2FormerSettings
from dgss.methods.tqdm import Tqdm, TqdmSettings
from tests.parts.standin import ColourMethod
from tests.parts.tiny import tiny_batch, tiny_towers

SMALL = {
    "width": 16,
    "heads": 2,
    "pixel_layers": 2,
    "decoder_layers": 2,
    "pixel_ffn": 8,
    "decoder_ffn": 8,
    "norm_groups": 4,
}


def small_tqdm(**changes: object) -> Tqdm:
    settings = TqdmSettings(**{**SMALL, "contexts": 2, "vision_weight": 0, **changes})
    labels = label_space("cityscapes19")
    return settings.build(tiny_towers(), labels, torch.Generator().manual_seed(0)).eval()


def clarity_of(maps: list[Tensor], labels: Tensor, classes: int) -> list[float]:
    clarity = Clarity(classes)
    clarity.add(maps, labels)
    return list(clarity.values())


def looped(x: Tensor, cells: Tensor) -> float:
    """The formula word by word: x (B, D, h, w), cells (B, h, w)."""
    places = [(b, r, c) for b, r, c in torch.cartesian_prod(*map(torch.arange, cells.shape)).tolist()]
    labelled = [(x[b, :, r, c], int(cells[b, r, c])) for b, r, c in places if cells[b, r, c] != IGNORE]
    present = sorted({k for _, k in labelled})
    means = {j: torch.stack([vector for vector, k in labelled if k == j]).mean(0) for j in present}
    total = 0.0
    for vector, k in labelled:
        cosines = {j: float(cosine_similarity(vector, means[j], dim=0)) for j in present}
        total += cosines.pop(k) - sum(cosines.values()) / len(cosines)
    return total / len(labelled)


@pytest.mark.parametrize("seed", range(5))
def test_sums_in_one_pass_are_the_formula(seed: int) -> None:  # mutation: plain sums in place of unit sums; K not unit
    draw = torch.Generator().manual_seed(seed)
    maps = [torch.randn(3, 4, 5, 6, generator=draw) * torch.rand(3, 1, 5, 6, generator=draw) + m for m in (0, 1, -2)]
    cells = torch.randint(0, 4, (3, 5, 6), generator=draw)
    cells[cells == 2] = 0  # class 2 never occurs
    cells[torch.rand(cells.shape, generator=draw) < 0.2] = IGNORE
    labels = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
    together, apart = Clarity(4), Clarity(4)
    together.add(maps, labels)
    for b in range(3):
        apart.add([x[b : b + 1] for x in maps], labels[b : b + 1])
    expected = [looped(x.double(), cells) for x in maps]
    assert together.values() == pytest.approx(expected, abs=1e-9)
    assert apart.values() == pytest.approx(expected, abs=1e-9)


def test_known_values() -> None:
    cells = torch.arange(4).repeat(6, 1)[None]  # (1, 6, 4), a column a class
    directions = torch.eye(4).expand(6, 4, 4).permute(2, 0, 1)[None]  # each class its own right-angled direction
    lengths = torch.rand(1, 1, 6, 4) + 0.1
    assert clarity_of([directions * lengths], cells, 4) == pytest.approx([1])
    opposite = torch.where(cells % 2 == 0, 1.0, -1.0)[:, None]
    assert clarity_of([opposite], cells % 2, 2) == pytest.approx([2])
    assert clarity_of([torch.ones(1, 4, 6, 4)], cells, 4) == pytest.approx([0], abs=1e-9)


def test_labels_that_say_nothing_are_worth_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 5, (4, 40, 40), generator=draw)
    x = torch.randn(4, 8, 40, 40, generator=draw) + 3 * torch.randn(5, 8, generator=draw)[cells].movedim(3, 1)
    shuffled = cells.flatten()[torch.randperm(cells.numel(), generator=draw)].view_as(cells)
    (clear,), (none,) = clarity_of([x], cells, 5), clarity_of([x], shuffled, 5)
    assert clear > 0.5
    assert abs(none) < 0.01


def test_scale_of_a_map_and_order_of_classes_do_not_matter() -> None:
    batch = tiny_batch(ignored=0.2)
    x = torch.randn(2, 6, 4, 6)
    order = torch.randperm(19)
    renamed = torch.where(batch.labels == IGNORE, IGNORE, order[batch.labels.clamp(max=18)])
    assert clarity_of([7 * x], batch.labels, 19) == pytest.approx(clarity_of([x], batch.labels, 19))
    assert clarity_of([x], renamed, 19) == pytest.approx(clarity_of([x], batch.labels, 19))


@pytest.mark.parametrize("size", [(16, 24), (13, 21)])
def test_a_cell_takes_its_most_frequent_label(size: tuple[int, int]) -> None:  # mutation: nearest, ignored left out
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (2, *size), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = IGNORE
    h, w = -(-size[0] // 8), -(-size[1] // 8)
    found = cell_labels(labels, (h, w), 3)
    for b, r, c in torch.cartesian_prod(torch.arange(2), torch.arange(h), torch.arange(w)).tolist():
        rows = slice(r * size[0] // h, -(-(r + 1) * size[0] // h))
        columns = slice(c * size[1] // w, -(-(c + 1) * size[1] // w))
        values = labels[b, rows, columns].flatten().tolist()
        assert found[b, r, c] == max((0, 1, 2, IGNORE), key=values.count)


def test_mostly_ignored_cells_take_no_part() -> None:
    labels = torch.zeros(1, 8, 24, dtype=torch.int64)
    labels[:, :, 8:16] = 1
    labels[:, :, 16:] = IGNORE
    labels[:, :2, 16:] = 1
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]).T[None, :, None]  # (1, 2, 1, 3)
    assert clarity_of([x], labels, 2) == pytest.approx([1])


def test_what_cannot_be_compared_is_refused() -> None:
    x = [torch.randn(1, 3, 1, 1)]
    with pytest.raises(DataError, match="fewer than two"):
        Clarity(3).values()
    with pytest.raises(DataError, match="fewer than two"):
        clarity_of(x, torch.zeros(1, 8, 8, dtype=torch.int64), 3)
    for stray in (3, -1):
        with pytest.raises(DataError, match=f"label {stray} is none of 3 classes"):
            clarity_of(x, torch.full((1, 8, 8), stray), 3)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("size", [(32, 48), (40, 72)])
def test_layers_are_read_at_stride_eight(text: bool, size: tuple[int, int]) -> None:
    """The last map, normalised as the decoder does, is its finest memory; the first is the projected level."""
    method, images = small_tqdm(text_attention=text), tiny_batch(size).images
    maps = layer_maps(method, images)
    with torch.no_grad():
        features = method.tower(images)
        memory = method.pixel_decoder(features.levels, method(images).text if text else None)
        first = method.pixel_decoder.input_projections[-1](features.levels[1])
        last = method.pixel_decoder.post_norm(maps[-1].movedim(1, 3)).movedim(3, 1)
    assert [x.shape for x in maps] == [(2, 16, size[0] // 8, size[1] // 8)] * 3
    torch.testing.assert_close(maps[0], first)
    torch.testing.assert_close(last, memory.memories[-1])
    assert not any(x.requires_grad for x in maps)


def hooks(method: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in method.modules())


def test_no_hook_is_left_behind() -> None:  # mutation: hooks removed only after a forward that went well
    method, images = small_tqdm(), tiny_batch().images
    before = method(images).mask_logits[-1]
    layer_maps(method, images)
    assert hooks(method) == 0
    with pytest.raises(RuntimeError):
        layer_maps(method, images[:, :2])
    assert hooks(method) == 0
    torch.testing.assert_close(method(images).mask_logits[-1], before, rtol=0, atol=0)


def test_any_method_with_a_pixel_decoder_has_layers_and_others_say_so() -> None:
    labels, images = label_space("cityscapes19"), tiny_batch().images
    baseline = Mask2FormerSettings(**SMALL, queries=20).build(tiny_towers(text=False), labels, torch.Generator())
    assert len(layer_maps(baseline.eval(), images)) == 3
    with pytest.raises(RecipeError, match="ColourMethod has no pixel decoder"):
        layer_maps(ColourMethod(labels), images)


def test_clarity_of_a_model_is_a_number_for_every_layer() -> None:
    batch, clarity = tiny_batch((64, 64), classes=4), Clarity(19)
    clarity.add(layer_maps(small_tqdm(), batch.images), batch.labels)
    assert len(clarity.values()) == 3
    assert all(math.isfinite(value) and -2 <= value <= 2 for value in clarity.values())

"""What is true of every method: a new one is tested by standing in the union of `dgss.methods`.

Each law names the mutation that must break it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from dgss.interfaces import Batch, Method, SampleGenerator, Towers
from dgss.labels import IGNORE, LabelSpace
from dgss.methods import MethodSettings
from dgss.methods.tqdm import TqdmSettings
from dgss.towers.base import FrozenCopy
from tests.parts.tiny import tiny_towers


class TqdmWithPrior(TqdmSettings):
    """tqdm as the small recipes have it."""

    mask_prior: Literal["none", "score_map"] = "score_map"


UNION = (*get_args(get_args(MethodSettings)[0]), TqdmWithPrior)
SMALL = {
    "width": 16,
    "heads": 2,
    "pixel_layers": 2,
    "decoder_layers": 3,
    "pixel_ffn": 24,
    "decoder_ffn": 24,
    "queries": 7,
    "contexts": 2,
    "norm_groups": 4,
}


def tiny_labels() -> LabelSpace:
    names = ("road", "sky", "car", "traffic light")
    return LabelSpace("four", names, ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)), (0, 1, 2, 3), (False,) * 4)


def small_settings(settings: type[Any], **changes: Any) -> Any:
    """The method's own defaults, at a size that a test can pay for."""
    values: dict[str, Any] = {key: value for key, value in SMALL.items() if key in settings.model_fields}
    default = settings()
    if "mask_losses" in settings.model_fields:
        values["mask_losses"] = default.mask_losses.model_copy(update={"points": 64})
    if getattr(default, "context_decoder", None) is not None:
        values["context_decoder"] = default.context_decoder.model_copy(update={"width": 16, "heads": 2, "layers": 1})
    return default.model_copy(update=values | changes)


def build(
    settings: type[Any], labels: LabelSpace | None = None, seed: int = 0, towers: Towers | None = None, **changes: Any
) -> Method:
    generator = torch.Generator().manual_seed(seed)
    built = small_settings(settings, **changes).build(towers or tiny_towers(), labels or tiny_labels(), generator)
    assert isinstance(built, Method)
    return built


def batch_of(count: int = 2, size: tuple[int, int] = (32, 64), classes: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (count, size[0] // 8, size[1] // 8), generator=generator)
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :2, :5] = IGNORE
    images = torch.rand(count, 3, *size, generator=generator)
    return Batch(images, labels, torch.ones(count, *size, dtype=torch.bool), torch.arange(count))


class PointsByClass(SampleGenerator):
    """Draws as ever, and then gives each class of an image the row that it has in another order of the classes.

    places: where in that order each class stands.
    """

    def __init__(self, seed: int, batch: Batch, places: Tensor) -> None:
        super().__init__(seed, batch.numbers)
        present = [places[image[image != IGNORE].unique()] for image in batch.labels]
        self.rows = [found.argsort().argsort() for found in present]  # ranks

    def uniform(self, image: int, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        return super().uniform(image, shape, device)[self.rows[image]]


def losses(method: Method, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    return method.losses(method(batch.images, batch.valid), batch, SampleGenerator(seed, batch.numbers))


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def method_name(settings: type[Any]) -> str:
    return str(settings.model_fields["name"].default) + ("-with-prior" if settings is TqdmWithPrior else "")


def shake(method: Method) -> None:
    """Some first values are zero (the offsets' weights): at them a right gradient can be zero too."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


# method -> parameters without a gradient, and why
WITHOUT_TEXT = {"tower.projection.weight"}  # the tower's way into text space: the method has no text
NO_GRADIENT = {"mask2former": WITHOUT_TEXT, "linear": WITHOUT_TEXT}

every_method = pytest.mark.parametrize("settings", UNION, ids=method_name)
# what is said of losses and gradients holds where there is anything to train
LEARNING = [settings for settings in UNION if getattr(settings, "trains", True)]
every_learner = pytest.mark.parametrize("settings", LEARNING, ids=method_name)


@every_method
def test_batch_of_two_answers_as_each_alone(settings: type[Any]) -> None:
    """Law 1. Broken by normalising over the batch axis."""
    method, batch = build(settings).eval(), batch_of()
    with torch.no_grad():
        together = method(batch.images).scores((32, 64))
        alone = torch.cat([method(image[None]).scores((32, 64)) for image in batch.images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@every_method
@pytest.mark.parametrize("size", [(33, 65), (32, 40), (47, 31), (32, 64)], ids=str)
def test_any_size_is_answered_at_that_size(settings: type[Any], size: tuple[int, int]) -> None:
    """Law 6. Broken by rounding down."""
    method = build(settings).eval()
    with torch.no_grad():
        scores = method(torch.rand(1, 3, *size)).scores(size)
    assert scores.shape == (1, len(method.labels), *size)
    assert torch.isfinite(scores).all()


@every_learner
def test_gradient_reaches_what_trains_and_nothing_else(settings: type[Any]) -> None:
    """Law 7. Broken by detaching one branch."""
    method = build(settings).train()
    shake(method)
    total(losses(method, batch_of())).backward()
    in_groups = {name for group in method.parameter_groups() for name, _ in group.parameters}
    trains = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert in_groups == trains
    silent = {name for name, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # a key's bias moves all logits of a row alike: its gradient is zero in exact arithmetic
    silent = {name for name in silent if "bias" not in name}
    assert silent <= NO_GRADIENT.get(method_name(settings), set()), f"no gradient: {sorted(silent)}"
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)


@every_method
def test_each_parameter_is_in_one_group_once(settings: type[Any]) -> None:
    names = [name for group in build(settings).parameter_groups() for name, _ in group.parameters]
    assert len(names) == len(set(names))


@every_learner
@pytest.mark.parametrize("frozen_norm", [True, False], ids=["norm frozen", "norm moves"])
def test_frozen_parts_stay_to_the_bit(settings: type[Any], frozen_norm: bool) -> None:
    """Law 8. Broken by leaving running statistics on: in the tower (by setting modules to train), in a frozen copy."""
    method = build(settings, towers=tiny_towers(frozen_norm=frozen_norm)).train()
    statistics = {name: value.clone() for name, value in method.named_buffers() if "running_" in name}
    frozen = {name: p.detach().clone() for name, p in method.named_parameters() if not p.requires_grad}
    copies = [copy.deepcopy(part.state_dict()) for part in frozen_parts(method)]
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        total(losses(method, batch_of(seed=step))).backward()
        optimizer.step()
    now = dict(method.named_parameters())
    assert all(torch.equal(now[name], before) for name, before in frozen.items())
    assert statistics, "the tower has batch norm"
    buffers = dict(method.named_buffers())
    assert all(torch.equal(buffers[name], before) == frozen_norm for name, before in statistics.items())
    for part, before in zip(frozen_parts(method), copies, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())


def frozen_parts(method: Method) -> list[nn.Module]:
    """Modules that hold no parameter that trains; of a frozen copy the tower that it hides from torch."""
    quiet = [part for part in method.children() if not any(p.requires_grad for p in part.parameters())]
    return [part.tower if isinstance(part, FrozenCopy) else part for part in quiet]


def test_the_frozen_copy_is_among_the_frozen_parts() -> None:
    """Else the law above would compare nothing."""
    compared = [len(part.state_dict()) for part in frozen_parts(build(TqdmSettings))]
    assert compared.count(0) <= 1, "only the fixed prompts hold no tensors"
    assert max(compared) > 5


@every_method
def test_no_frozen_copy_is_saved(settings: type[Any]) -> None:
    method = build(settings)
    again = build(settings, seed=1)
    again.load_state_dict(method.state_dict(), strict=True)
    saved = sum(value.numel() for value in method.state_dict().values())
    own = sum(
        value.numel() for part in (tiny_towers().image, tiny_towers().text) for value in part.state_dict().values()
    )
    decoder = sum(
        p.numel() for name, p in method.named_parameters() if p.requires_grad and not name.startswith("tower.")
    )
    assert saved <= own + decoder + 200, "more is saved than one pair of towers and the decoder"


@every_learner
def test_same_seed_same_bits_and_another_differs(settings: type[Any]) -> None:
    """Law 11. Broken by drawing from global state."""
    first, again, other = (build(settings, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    same, same_again = (total(losses(model.eval(), batch_of())) for model in (first, again))
    assert torch.equal(same, same_again)
    draws = "mask_losses" in settings.model_fields  # points; a loss at every pixel draws nothing
    assert torch.equal(same, total(losses(first, batch_of(), seed=1))) != draws


@every_learner
def test_building_and_losses_leave_the_global_generator_alone(settings: type[Any]) -> None:
    state = torch.get_rng_state()
    losses(build(settings).eval(), batch_of())
    assert torch.equal(state, torch.get_rng_state())


@every_learner
def test_losses_of_a_batch_do_not_depend_on_its_order(settings: type[Any]) -> None:
    """Points follow the sample's number. Broken by drawing them batch-wise."""
    method, batch = build(settings).eval(), batch_of(3)
    turned = Batch(*(value.flip(0) for value in (batch.images, batch.labels, batch.valid, batch.numbers)))
    torch.testing.assert_close(total(losses(method, batch)), total(losses(method, turned)), atol=1e-4, rtol=1e-5)


@every_learner
def test_losses_are_positive_and_fall_along_their_gradient(settings: type[Any]) -> None:
    """Law 16. Broken by swapping target and input."""
    method, batch = build(settings).eval(), batch_of()  # dropout would draw anew
    terms = losses(method, batch)
    assert all(value.ndim == 0 and value >= 0 for value in terms.values())
    before = total(terms)
    before.backward()
    trained = [p for p in method.parameters() if p.grad is not None]
    norm = torch.stack([p.grad.square().sum() for p in trained if p.grad is not None]).sum().sqrt()
    with torch.no_grad():
        for parameter in trained:
            parameter -= (
                1e-2 * parameter.grad / norm
            )  # large enough to outweigh a cell that flips in the attention mask
    assert total(losses(method, batch)) < before


@every_learner
def test_ignored_pixels_count_as_written(settings: type[Any]) -> None:
    """Law 17: an image without labels costs no mask loss and stays finite. Broken by treating 255 as a class."""
    method, batch = build(settings).train(), batch_of()
    empty = replace(batch, labels=torch.full_like(batch.labels, IGNORE))
    terms = losses(method, empty)
    assert torch.isfinite(total(terms))
    assert all(value == 0 for name, value in terms.items() if name.startswith(("mask", "dice")))


def having(field: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", [s for s in UNION if field in s.model_fields], ids=method_name)


@having("text_queries")
def test_scores_follow_permuted_classes(settings: type[Any]) -> None:
    """Law 2, for methods whose queries are the classes. Broken by sorting the names."""
    labels = tiny_labels()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    permuted = replace(labels, names=tuple(labels.names[i] for i in order))
    method, other = build(settings, labels).eval(), build(settings, permuted).eval()
    other.load_state_dict(permute_rows(method.state_dict(), order, len(labels)))
    batch = batch_of()
    inverse = torch.cat([order.argsort(), torch.full((256 - len(labels),), IGNORE)])
    renamed = replace(batch, labels=inverse[batch.labels])
    with torch.no_grad():
        scores, other_scores = (model(batch.images).scores((32, 64)) for model in (method, other))
        terms = losses(method, batch)
        same_points = PointsByClass(0, renamed, order)  # they are drawn in the order of the classes
        other_terms = other.losses(other(batch.images, batch.valid), renamed, same_points)
    torch.testing.assert_close(other_scores, scores[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(other_terms, terms, atol=1e-5, rtol=1e-5)


@having("queries")
def test_order_of_the_queries_is_free(settings: type[Any]) -> None:
    """Law 3, for methods that match their queries. Broken by dropping the matching."""
    method = build(settings).eval()
    other = build(settings).eval()
    count = next(p.shape[0] for name, p in method.named_parameters() if name.startswith("query"))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    state = method.state_dict()
    other.load_state_dict(
        {k: v[order] if k.startswith("query") and v.shape[0] == count else v for k, v in state.items()}
    )
    batch = batch_of()
    with torch.no_grad():
        torch.testing.assert_close(
            other(batch.images).scores((32, 64)), method(batch.images).scores((32, 64)), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(total(losses(other, batch)), total(losses(method, batch)), atol=1e-3, rtol=1e-4)


def permute_rows(state: dict[str, Tensor], order: Tensor, classes: int) -> dict[str, Tensor]:
    """Rows that belong to classes: K of them, or K + 1 with "no object" last."""
    with_none = torch.cat([order, torch.tensor([classes])])
    changed = {}
    for name, value in state.items():
        if name.startswith("tower.") or value.ndim == 0:
            changed[name] = value
        elif value.shape == (classes, classes + 1):  # a class a row, and a class or "no object" a column
            changed[name] = value[order][:, with_none]
        elif value.shape[0] == classes:
            changed[name] = value[order]
        elif value.shape[0] == classes + 1:
            changed[name] = value[with_none]
        else:
            changed[name] = value
    return changed


@every_method
def test_half_precision_stays_near(settings: type[Any]) -> None:
    """Law 23: scores under bfloat16 autocast within 0.03, losses in float32, no float64 anywhere."""
    method, batch = build(settings).eval(), batch_of()
    with torch.no_grad():
        exact = method(batch.images).scores((32, 64))
        with torch.autocast("cpu", torch.bfloat16):
            near = method(batch.images).scores((32, 64))
            terms = losses(method, batch) if settings in LEARNING else {}
    assert (exact - near.float()).abs().max() < 0.03, float((exact - near.float()).abs().max())
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert all(value.dtype != torch.float64 for value in method.state_dict().values())


@every_learner
def test_two_images_are_learned_by_heart(settings: type[Any]) -> None:
    """Law 24. Broken by shifting labels by one class."""
    from dgss.evaluation.confusion import Confusion

    method = build(settings, width=32, heads=4).train()
    generator = torch.Generator().manual_seed(3)
    blocks = torch.randint(0, 4, (2, 4, 4), generator=generator)
    labels = blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)
    palette = torch.rand(4, 3, generator=generator)
    images = palette[labels].permute(0, 3, 1, 2) * 0.9 + 0.1 * torch.rand(2, 3, 128, 128, generator=generator)
    batch = Batch(images, labels, torch.ones(2, 128, 128, dtype=torch.bool), torch.arange(2))
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=2e-3)
    for step in range(200):
        optimizer.zero_grad()
        total(losses(method, batch, seed=step)).backward()
        optimizer.step()
    with torch.no_grad():
        found = method.eval()(images).scores((128, 128)).argmax(1)
    confusion = Confusion(len(method.labels))
    for label, prediction in zip(labels, found, strict=True):
        confusion.add(label.numpy().astype("uint8"), prediction.numpy().astype("uint8"))
    assert confusion.miou() > 0.95

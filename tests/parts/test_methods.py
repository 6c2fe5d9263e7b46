"""The methods' own switches; what holds for every method stands in tests/laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from dgss.errors import DataError, RecipeError
from dgss.interfaces import Batch, ImageFeatures, Method, PixelPrediction, SampleGenerator, Towers
from dgss.labels import label_space
from dgss.losses.mask_losses import MaskLossSettings
from dgss.methods import MethodSettings
from dgss.methods.mask2former import Mask2Former, Mask2FormerSettings
from dgss.methods.pixelwise import Linear, LinearSettings
from dgss.methods.tqdm import Tqdm, TqdmSettings
from dgss.methods.zero_shot import ZeroShot, ZeroShotSettings
from dgss.towers.text import ContextDecoderSettings
from tests.parts.tiny import TinyTextTower, tiny_batch, tiny_towers

SMALL: dict[str, Any] = {
    "width": 16,
    "heads": 2,
    "pixel_layers": 1,
    "decoder_layers": 3,
    "pixel_ffn": 24,
    "decoder_ffn": 24,
    "norm_groups": 4,
    "mask_losses": MaskLossSettings(points=64),
}
LOOKS = ContextDecoderSettings(width=16, heads=2, layers=1, dropout=0.0, gamma=0.1)
CITY = label_space("cityscapes19")


def tqdm(towers: Towers | None = None, teacher: bool = True, **changes: Any) -> Tqdm:
    settings = TqdmSettings(**SMALL | {"contexts": 2, "context_decoder": LOOKS} | changes)
    return settings.build(towers or tiny_towers(), CITY, torch.Generator().manual_seed(0), teacher)


def mask2former(**changes: Any) -> Mask2Former:
    settings = Mask2FormerSettings(**SMALL | {"queries": 21} | changes)
    return settings.build(tiny_towers(text=False), CITY, torch.Generator().manual_seed(0))


def linear(towers: Towers | None = None, **changes: Any) -> Linear:
    sizes = {key: value for key, value in SMALL.items() if key in LinearSettings.model_fields}
    settings = LinearSettings(**sizes | changes)
    return settings.build(towers or tiny_towers(text=False), CITY, torch.Generator().manual_seed(0))


def zero_shot(towers: Towers | None = None, **changes: Any) -> ZeroShot:
    return ZeroShotSettings(**changes).build(towers or tiny_towers(), CITY, torch.Generator())


def losses(method: Method, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    return method.losses(method(batch.images, batch.valid), batch, SampleGenerator(seed, batch.numbers))


MASK_TERMS = {name + end for name in ("class", "mask", "dice") for end in ("", ".earlier")}


def test_settings_are_found_by_name_and_typos_are_not_swallowed() -> None:
    adapter = TypeAdapter(MethodSettings)
    assert isinstance(adapter.validate_python({"name": "tqdm", "width": 96}), TqdmSettings)
    assert isinstance(adapter.validate_python({"name": "mask2former"}), Mask2FormerSettings)
    for wrong in ({"name": "tqdm", "widht": 96}, {"name": "mask2fromer"}, {"name": "tqdm", "template": "no place"}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_all_terms_of_tqdm_by_name_and_a_weight_of_zero_leaves_each_out() -> None:
    """Law 9. Broken by computing a term and multiplying it by 0."""
    own = {"language", "vision_language", "vision"}
    assert set(losses(tqdm(), tiny_batch())) == MASK_TERMS | own
    for name in own:
        model = tqdm(**{f"{name}_weight": 0.0})
        assert set(losses(model, tiny_batch())) == MASK_TERMS | own - {name}
    assert tqdm(vision_weight=0.0).teacher is None and tqdm(teacher=False).teacher is None


def test_weights_scale_their_terms() -> None:
    names = {"language": "language_weight", "vision_language": "vision_language_weight", "vision": "vision_weight"}
    model, other = tqdm(), tqdm(**dict.fromkeys(names.values(), 3.0))
    with torch.no_grad():
        for part in (model, other):
            part.tower.projection.weight += 0.1  # away from the frozen copy
    once, thrice = losses(model, tiny_batch()), losses(other, tiny_batch())
    for name in names:
        assert once[name] > 0
        torch.testing.assert_close(3 * once[name], thrice[name])


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"contexts": 0}, "prompts.contexts"),
        ({"context_decoder": None}, "context_decoder"),
        ({"text_queries": False}, "query_projection"),
        ({"text_attention": False}, "text_attention"),
    ],
    ids=str,
)
def test_each_part_can_be_left_out(changes: dict[str, Any], absent: str) -> None:
    """A part that is off has no parameters, and what stays still learns."""
    batch = tiny_batch()
    model, whole = tqdm(**changes), tqdm()
    assert any(absent in name for name, _ in whole.named_parameters())
    assert not any(absent in name for name, _ in model.named_parameters())
    torch.stack(list(losses(model.train(), batch).values())).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_without_any_use_of_the_text_the_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"^method\.text_queries = false: .*choose the method mask2former$"):
        tqdm(text_queries=False, text_attention=False, vision_language_weight=0.0)


def test_towers_that_cannot_serve_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"^method\.name: .*text partner; choose another tower"):
        tqdm(tiny_towers(text=False))
    towers = tiny_towers()
    towers.image.temperature = None
    with pytest.raises(RecipeError, match=r"^method\.mask_prior = 'score_map': needs a tower with a temperature"):
        tqdm(towers, mask_prior="score_map")
    with pytest.raises(RecipeError, match=r"^method\.queries = 18: should be at least 19, one for each class"):
        mask2former(queries=18)
    with pytest.raises(RecipeError, match=r"^method\.contexts = 99: 99 contexts and class names .* do not fit"):
        tqdm(contexts=99)


class DropPath(torch.nn.Identity):
    """Known by its name."""


def test_a_frozen_copy_that_draws_needs_drop_path() -> None:
    """Else the option would do nothing."""
    with pytest.raises(RecipeError, match=r"^method\.frozen_copy = 'train': .* drop path .* set it to eval$"):
        tqdm(frozen_copy="train")
    towers = tiny_towers()
    towers.image.drop = DropPath()
    copied = tqdm(towers, frozen_copy="train").train().teacher
    assert copied is not None and copied.tower.drop.training


def test_fixed_prompts_are_encoded_once_for_any_number_of_images() -> None:
    """Law 22."""
    model = tqdm(contexts=0, context_decoder=None).eval()
    assert isinstance(model.text, TinyTextTower)
    with torch.no_grad():
        first = model(tiny_batch().images)
        model(tiny_batch(seed=1).images)
    losses(model, tiny_batch())
    assert model.text.calls == 1
    torch.testing.assert_close(first.text.norm(dim=2), torch.ones(2, 19))


@pytest.mark.parametrize("dense_level", [0, 1])
def test_a_prior_is_the_first_answer_of_an_untrained_decoder(dense_level: int) -> None:
    """Ours: logit(p_k), p = softmax over the classes of s cos(pixel, T_k), in every prediction."""
    model = tqdm(tiny_towers(dense_level=dense_level), mask_prior="score_map").eval()
    with torch.no_grad():
        prediction = model(tiny_batch((64, 96)).images)
        dense = prediction.features.dense
        cosines = torch.nn.functional.cosine_similarity(prediction.text[..., None, None], dense[:, None], 2)
        share = (8.0 * cosines).softmax(1)  # the stand-in's temperature
    size = prediction.mask_logits[0].shape[2:]
    wanted = torch.nn.functional.interpolate((share / (1 - share)).log(), size, mode="bilinear", align_corners=False)
    for masks, classes in zip(prediction.mask_logits, prediction.class_logits, strict=True):
        torch.testing.assert_close(masks, wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(classes, 6.0 * torch.eye(19, 20).expand_as(classes))  # query k is for class k
    assert torch.equal(
        prediction.scores((64, 96)).argmax(1),
        torch.nn.functional.interpolate(share, (64, 96), mode="bilinear").argmax(1),
    )


def test_a_trained_prior_does_not_follow_the_shipped_tower() -> None:
    """The scale of the pair lies in the weights: another temperature of the package changes no old run."""
    first, later = tiny_towers(), tiny_towers()
    later.image.temperature = 2.0
    trained, loaded = tqdm(first, mask_prior="score_map").eval(), tqdm(later, mask_prior="score_map").eval()
    batch = tiny_batch()
    with torch.no_grad():
        assert not torch.equal(trained(batch.images).scores((8, 8)), loaded(batch.images).scores((8, 8)))
        loaded.load_state_dict(trained.state_dict())
        assert torch.equal(trained(batch.images).scores((8, 8)), loaded(batch.images).scores((8, 8)))


def test_a_prior_stays_finite_where_the_tower_is_sure() -> None:
    towers = tiny_towers()
    towers.image.temperature = 1e6
    model = tqdm(towers, mask_prior="score_map")
    batch = tiny_batch()
    assert all(torch.isfinite(masks).all() for masks in model(batch.images).mask_logits)
    torch.stack(list(losses(model, batch).values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_pixel_loss_ignores_pixels_and_divides_as_told() -> None:
    """Law 17: what is said under 255 changes nothing; `all` divides by these pixels too, as the program does."""
    ours, theirs = tqdm(), tqdm(pixel_mean="all")
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, :, 4:] = 255
    scores = torch.randn(1, 19, 8, 8)
    other = scores.clone()
    other[..., 4:] = torch.randn(1, 19, 8, 4)
    assert ours.pixel_loss(scores, labels) == ours.pixel_loss(other, labels)
    torch.testing.assert_close(ours.pixel_loss(scores, labels), 2 * theirs.pixel_loss(scores, labels))
    assert ours.pixel_loss(scores, torch.full_like(labels, 255)) == 0


def test_the_language_loss_is_least_at_the_frozen_embeddings() -> None:
    model = tqdm()
    frozen = model.fixed_prompts()
    there = model.language_loss(3.0 * frozen.expand(2, -1, -1))
    cosines = frozen @ frozen.T
    torch.testing.assert_close(there, (cosines.logsumexp(1) - cosines.diagonal()).mean())
    assert model.language_loss(frozen.flip(0)[None]) > there


def test_the_frozen_copy_keeps_the_first_embedding() -> None:
    """L_reg^V is 0 before the first step; then it counts the distance from the start, not from the last step."""
    model, batch = tqdm().train(), tiny_batch()
    assert losses(model, batch)["vision"] == 0
    before = model.tower(batch.images).pooled
    with torch.no_grad():
        model.tower.projection.bias += 0.5
    torch.testing.assert_close(
        losses(model, batch)["vision"], (before - model.tower(batch.images).pooled).square().mean()
    )


def test_the_frozen_copy_sees_no_padding() -> None:
    """L_reg^V is 0 for an unchanged tower on a padded batch. Broken by leaving `valid` out on the way to the copy."""
    model, batch = tqdm().train(), tiny_batch()
    batch.valid[:, :, 24:] = False
    assert losses(model, batch)["vision"] == 0
    assert model.vision_loss(model(batch.images), batch) > 0, "padding is seen where it is not told"


def test_the_text_tower_stays_in_eval_mode() -> None:
    model = tqdm().train()
    assert model.training and model.tower.training and not model.text.training


def test_scores_are_enlarged_after_the_sum_over_queries() -> None:
    prediction = tqdm().eval()(tiny_batch().images)
    assert not prediction.resize_first and mask2former()(tiny_batch().images).resize_first
    whole = replace(prediction, resize_first=True).scores((32, 48))
    assert not torch.equal(whole, prediction.scores((32, 48)))


def test_parameter_groups_of_tqdm_follow_the_published_rule() -> None:
    groups = {name: group for group in tqdm(tower_lr_scale=0.3).parameter_groups() for name, _ in group.parameters}
    wanted = {
        "tower.stem.weight": (0.3, 1.0),
        "prompts.contexts": (1.0, 1.0),
        "context_decoder.layers.0.norm1.weight": (1.0, 0.0),
        "context_decoder.memory_projection.0.weight": (1.0, 1.0),
        "pixel_decoder.layers.0.norm_text.bias": (1.0, 0.0),
        "pixel_decoder.lateral.1.weight": (1.0, 1.0),
        "mask_decoder.post_norm.weight": (1.0, 0.0),
        "query_positions": (1.0, 1.0),
    }
    assert {name: (groups[name].lr_scale, groups[name].decay_scale) for name in wanted} == wanted
    spared = {g.name: g for g in tqdm(embedding_decay=False).parameter_groups()}["embedding"]
    assert [name for name, _ in spared.parameters] == ["query_positions", "mask_decoder.level_embed"]
    assert spared.decay_scale == 0.0


def test_parameter_groups_of_mask2former_spare_norms_and_embeddings() -> None:
    groups = {g.name: {name for name, _ in g.parameters} for g in mask2former().parameter_groups()}
    spared = groups["undecayed"]
    assert {"query_content", "query_positions", "mask_decoder.level_embed", "pixel_decoder.lateral.1.weight"} <= spared
    assert "pixel_decoder.level_encoding" in groups["head"] and "tower.stem.weight" in groups["tower"]


def test_losses_of_mask2former_do_not_depend_on_the_order_of_its_queries() -> None:
    """Law 3. Broken by matching queries by their place."""
    model, batch = mask2former().eval(), tiny_batch()
    before, scores = losses(model, batch), model(batch.images).scores((32, 48))
    order = torch.randperm(21)
    with torch.no_grad():
        model.query_content.copy_(model.query_content[order])
        model.query_positions.copy_(model.query_positions[order])
    for name, value in losses(model, batch).items():
        torch.testing.assert_close(value, before[name], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(model(batch.images).scores((32, 48)), scores, atol=1e-4, rtol=1e-4)


def test_mask2former_needs_no_text() -> None:
    assert set(losses(mask2former(), tiny_batch())) == MASK_TERMS


def test_all_methods_build_on_the_meta_device() -> None:
    builders = (tqdm, mask2former, linear, zero_shot)
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in build().parameters()) for build in builders]
    assert sizes == [sum(p.numel() for p in build().parameters()) for build in builders]


def test_a_frozen_tower_needs_no_copy_that_holds_it() -> None:
    towers = tiny_towers()
    towers.image.requires_grad_(False)
    model = tqdm(towers)
    assert model.teacher is None and "vision" not in losses(model, tiny_batch())


def test_pixels_are_enlarged_before_the_softmax() -> None:
    """In the other order another class wins at some pixels."""
    logits = torch.tensor([[[[0.0, 0.0]], [[-9.0, 1.0]]]])  # (1, 2, 1, 2)
    scores = PixelPrediction(ImageFeatures(()), logits).scores((1, 8))
    difference = torch.nn.functional.interpolate(logits, (1, 8), mode="bilinear", align_corners=False)[0, 1, 0]
    torch.testing.assert_close(scores[0, 1, 0], difference.sigmoid())
    mixed = torch.nn.functional.interpolate(logits.softmax(1), (1, 8), mode="bilinear", align_corners=False)
    assert not torch.equal(mixed.argmax(1), scores.argmax(1))


def test_the_classifier_is_the_pixel_decoder_and_one_convolution() -> None:
    model, other = linear().eval(), mask2former()
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"tower", "pixel_decoder", "classifier"}
    shapes = [{key: p.shape for key, p in part.pixel_decoder.named_parameters()} for part in (model, other)]
    assert shapes[0] == shapes[1], "the same decoder as the baseline's"
    images = tiny_batch().images
    with torch.no_grad():
        fine = model.pixel_decoder(model.tower(images).levels).mask_features  # (B, D, h, w)
        weight, bias = model.classifier.weight[:, :, 0, 0], model.classifier.bias
        wanted = torch.einsum("kd,bdhw->bkhw", weight, fine) + bias[:, None, None]
        torch.testing.assert_close(model(images).logits, wanted, atol=1e-5, rtol=1e-5)


def test_the_classifier_knows_no_text() -> None:
    with_text = linear(tiny_towers())
    assert not any("text" in name or "prompt" in name for name in with_text.state_dict())
    assert not any(isinstance(part, TinyTextTower) for part in with_text.modules())


def test_the_classifier_pays_the_mean_over_labelled_pixels() -> None:
    """Law 17. Broken by dividing by all pixels, or by reading 255 as a class."""
    model, batch = linear().eval(), tiny_batch(ignored=0.5)
    logits = torch.nn.functional.interpolate(
        model(batch.images).logits, batch.labels.shape[1:], mode="bilinear", align_corners=False
    )
    seen = batch.labels != 255
    shares = logits.log_softmax(1).movedim(1, -1)[seen].gather(1, batch.labels[seen][:, None])
    assert set(losses(model, batch)) == {"pixel"}
    torch.testing.assert_close(losses(model, batch)["pixel"], -shares.mean())
    assert losses(model, replace(batch, labels=torch.full_like(batch.labels, 255)))["pixel"] == 0


def test_the_classifier_learns_and_every_parameter_takes_part() -> None:
    model, batch = linear().train(), tiny_batch()
    optimizer = torch.optim.AdamW([p for g in model.parameter_groups() for _, p in g.parameters], lr=1e-2)
    paid = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = losses(model, batch)["pixel"]
        loss.backward()
        optimizer.step()
        paid.append(float(loss.detach()))
    assert paid[-1] < 0.9 * paid[0]
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {"tower.projection.weight", "tower.projection.bias"}, "the tower's way into text space alone"


def test_parameter_groups_of_the_classifier_follow_the_rule_of_mask2former() -> None:
    groups = {group.name: group for group in linear(tower_lr_scale=0.3).parameter_groups()}
    assert {name: (g.lr_scale, g.decay_scale) for name, g in groups.items()} == {
        "tower": (0.3, 1.0),
        "head": (1.0, 1.0),
        "undecayed": (1.0, 0.0),
    }
    names = {name: {key for key, _ in group.parameters} for name, group in groups.items()}
    assert {"classifier.weight", "classifier.bias", "pixel_decoder.level_encoding"} <= names["head"]
    assert "pixel_decoder.lateral.1.weight" in names["undecayed"] and "tower.stem.weight" in names["tower"]


@pytest.mark.parametrize("dense_level", [0, 1])
def test_zero_shot_takes_the_class_nearest_in_angle(dense_level: int) -> None:
    """Law 14. Broken by leaving a length out."""
    towers = tiny_towers(dense_level=dense_level)
    model, images = zero_shot(towers, template="the {} at night").eval(), tiny_batch().images
    with torch.no_grad():
        prediction = model(images)
        dense, ids = towers.image(images).dense, towers.text.tokens([f"the {name} at night" for name in CITY.names])
        texts = towers.text.encode(towers.text.embed(ids), ids)
    _, _, h, w = dense.shape
    for image in range(len(images)):
        for y in range(h):
            for x in range(w):
                pixel = dense[image, :, y, x]
                cosines = torch.stack([pixel @ text / pixel.norm() / text.norm() for text in texts])
                torch.testing.assert_close(prediction.logits[image, :, y, x], 8.0 * cosines, atol=1e-5, rtol=1e-5)
                assert prediction.scores((h, w))[image, :, y, x].argmax() == cosines.argmax()


def test_a_temperature_changes_no_answer_of_zero_shot() -> None:
    """A tower that states none is read with 1."""
    towers, images = tiny_towers(), tiny_batch().images
    sharp = zero_shot(towers)(images).scores((32, 48))
    towers.image.temperature = None
    plain = zero_shot(towers)(images)
    assert torch.equal(sharp.argmax(1), plain.scores((32, 48)).argmax(1))
    assert plain.logits.abs().max() <= 1 + 1e-5 and plain.scores((32, 48)).max() < sharp.max()


def test_zero_shot_trains_nothing_and_says_so() -> None:
    model = zero_shot(tiny_towers(frozen_norm=False)).train()
    assert not any(p.requires_grad for p in model.parameters()) and model.parameter_groups() == []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prediction = model(tiny_batch().images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RecipeError, match=r"^zero_shot has nothing to train; set training\.steps to 0$"):
        model.losses(prediction, tiny_batch(), SampleGenerator(0, torch.arange(2)))


def test_zero_shot_needs_text_that_can_be_read() -> None:
    with pytest.raises(RecipeError, match=r"^method\.name: .*text partner; choose another tower"):
        zero_shot(tiny_towers(text=False))
    with pytest.raises(ValidationError):
        ZeroShotSettings(template="no place")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"labels": torch.zeros(2, 16, 24, dtype=torch.long)}, r"labels .*\(2, 32, 48\).* got .* of \(2, 16, 24\)"),
        ({"labels": torch.zeros(1, 32, 48, dtype=torch.long)}, r"labels .* got torch.int64 of \(1, 32, 48\)"),
        ({"labels": torch.zeros(2, 1, 32, 48, dtype=torch.long)}, r"labels .* got torch.int64 of \(2, 1, 32, 48\)"),
        ({"labels": torch.zeros(2, 32, 48)}, r"labels .* torch.int64 .* got torch.float32 of \(2, 32, 48\)"),
        ({"labels": torch.zeros(2, 32, 48, dtype=torch.uint8)}, "labels .* torch.int64 .* got torch.uint8"),
        ({"valid": torch.ones(2, 48, 32, dtype=torch.bool)}, r"valid .*\(2, 32, 48\).* got .* of \(2, 48, 32\)"),
        ({"valid": torch.ones(2, 32, 48)}, r"valid .* torch.bool .* got torch.float32"),
    ],
)  # fmt: skip
def test_maps_of_another_size_or_type_than_their_images_make_no_batch(changed: dict[str, Tensor], told: str) -> None:
    """mutation: labels of half the size were taken, and gave losses that look right"""
    with pytest.raises(DataError, match=f"^{told}.*: bring each map to its image's size, and to that type$"):
        replace(tiny_batch(), **changed)  # type: ignore[arg-type]  # mypy reads one type for all four
    assert tiny_batch().to(torch.device("cpu")).labels.shape == (2, 32, 48)


@pytest.mark.parametrize("value", [-1, 19, 300])
def test_labels_that_are_no_classes_are_told_before_any_loss(value: int) -> None:
    batch = tiny_batch(ignored=0.0)
    batch.labels[0, 3, 4] = value
    for model in (tqdm(), mask2former(), linear()):
        with pytest.raises(DataError, match=f"^a batch holds label {value} in 1 of 3072 pixels, but .* 19 classes"):
            losses(model, batch)

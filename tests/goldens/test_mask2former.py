"""Mask2Former from the taps of a tower to the gradients, against the head of VLTSeg's program (mmdet's form).

The tower's blocks are the recorded ones; pyramid, decoders, Hungarian matching and losses are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from load import Golden
from torch import Tensor, nn

from dgss.interfaces import Batch, MaskPrediction, Towers
from dgss.levels import whole
from dgss.losses import mask_losses as losses_module
from dgss.losses.mask_losses import MaskLossSettings
from dgss.methods.mask2former import Mask2Former, Mask2FormerSettings
from dgss.weights.reference import MASK2FORMER
from tests.goldens.replay import RecordedDraws, RecordedTower, space, tensor

pytestmark = pytest.mark.golden("vltseg-tiny")

CASES = {"train": "label", "ignored": "label_ignored"}


def build(golden: Golden) -> Mask2Former:
    head, loss = golden.config["head"], golden.config["loss"]
    settings = Mask2FormerSettings(
        width=head["feat_channels"],
        heads=head["heads"],
        pixel_layers=head["encoder_layers"],
        decoder_layers=head["decoder_layers"],
        pixel_ffn=head["encoder_ffn"],
        decoder_ffn=head["decoder_ffn"],
        points_per_head=head["points"],
        norm_groups=head["group_norm_groups"],
        queries=head["num_queries"],
        mask_losses=MaskLossSettings(
            class_weight=loss["cls"],
            mask_weight=loss["mask"],
            dice_weight=loss["dice"],
            no_object=loss["no_object"],
            points=loss["num_points"],
            oversample=loss["oversample_ratio"],
            importance=loss["importance_sample_ratio"],
            empty_counts_one=True,
        ),
    )
    names = [str(number) for number in range(head["num_classes"])]
    model = settings.build(Towers(RecordedTower(taps(golden))), space(names), torch.Generator())
    state = {key: torch.from_numpy(np.array(value)) for key, value in golden.state_dict().items()}
    model.load_state_dict(MASK2FORMER.translate(state), strict=True)
    return model


def taps(golden: Golden) -> list[Tensor]:
    blocks = [tensor(golden, f"eval.block{i}")[:, 1:] for i in golden.config["backbone"]["out_indices"]]
    side = round(blocks[0].shape[1] ** 0.5)
    return [block.transpose(1, 2).unflatten(2, (side, side)) for block in blocks]


def test_every_stage_meets_the_reference(golden: Golden) -> None:
    model = build(golden).eval()
    memory: list[Any] = []
    model.pixel_decoder.register_forward_hook(lambda *answer: memory.append(answer[2]))
    image = torch.from_numpy(golden.input("image"))
    with torch.no_grad():
        prediction = model(image)
    found = {f"pyramid{i}": whole(level).detach() for i, level in enumerate(prediction.features.levels)}
    found |= {f"memory{i}": m for i, m in enumerate(memory[0].memories)} | {"mask_features": memory[0].mask_features}
    found |= {f"cls{i}": logits for i, logits in enumerate(prediction.class_logits)}
    found |= {f"mask{i}": logits for i, logits in enumerate(prediction.mask_logits)}
    found |= {"semantic": prediction.scores((int(image.shape[2]), int(image.shape[3])))}
    names = [name for name in golden.names("eval.") if name.removeprefix("eval.") in found]
    assert len(names) == len(found)
    for name in names:
        golden.check(name, found[name.removeprefix("eval.")].numpy())


def recorded(golden: Golden, case: str, layers: int, images: int) -> RecordedDraws:
    """For each prediction the points of the matching, an image at a time, then those of the losses.

    The reference lists an image's matched masks by their queries, we by their classes.
    """
    draws = RecordedDraws(images)
    for layer in range(layers + 1):
        prefix = f"draw:{case}:layer{layer}"
        for b in range(images):
            draws.add_one(b, tensor(golden, f"{prefix}:match{b}")[0])
        targets = [tensor(golden, f"{case}.match.layer{layer}.img{b}.gt") for b in range(images)]
        for kind in ("over", "random"):
            rows = torch.split(tensor(golden, f"{prefix}:{kind}"), [len(found) for found in targets])
            for b, (found, row) in enumerate(zip(targets, rows, strict=True)):
                draws.add_one(b, row[found.argsort()])
    return draws


@pytest.fixture(scope="module", params=CASES)
def step(golden: Golden, request: pytest.FixtureRequest) -> tuple[str, Mask2Former, list[Any], list[dict[str, Tensor]]]:
    """One training step: the case, the model with gradients, what was matched, the terms of every prediction."""
    model, labels = build(golden).train(), torch.from_numpy(golden.input(CASES[request.param]))
    batch = Batch(torch.from_numpy(golden.input("image")), labels, torch.ones_like(labels).bool(), torch.arange(2))
    matched: list[Any] = []
    layers: list[dict[str, Tensor]] = []

    def summed(terms: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        layers.extend(terms)
        return original(terms)

    original = losses_module.summed
    draws = recorded(golden, request.param, model.settings.decoder_layers, len(labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dgss.methods.mask2former.summed", summed)
        patch.setattr(losses_module, "class_loss", spy(losses_module.class_loss, matched))
        prediction: MaskPrediction = model(batch.images)
        terms = model.losses(prediction, batch, draws)
    draws.assert_used()
    torch.stack(list(terms.values())).sum().backward()
    return request.param, model, matched, layers


def spy(function: Any, matched: list[Any]) -> Any:
    def called(logits: Tensor, queries: list[Tensor], *rest: Any) -> Tensor:
        matched.append(queries)
        return function(logits, queries, *rest)  # type: ignore[no-any-return]

    return called


def test_matching_meets_the_reference(golden: Golden, step: Any) -> None:
    case, _, matched, _ = step
    for layer, images in enumerate(matched):
        for b, queries in enumerate(images):
            order = queries.argsort()
            golden.check(f"{case}.match.layer{layer}.img{b}.query", queries[order].numpy())
            golden.check(f"{case}.match.layer{layer}.img{b}.gt", order.numpy())


def test_losses_meet_the_reference(golden: Golden, step: Any) -> None:
    case, _, _, layers = step
    total = 0.0
    for i, terms in enumerate(layers):
        prefix = "" if i == len(layers) - 1 else f"d{i}."
        for name, short in (("class", "cls"), ("mask", "mask"), ("dice", "dice")):
            golden.check(f"{case}.loss.decode.{prefix}loss_{short}", terms[name].detach().numpy())
            total += terms[name].item()
    golden.check(f"{case}.loss.total", np.asarray(total))


def test_gradients_and_statistics_meet_the_reference(golden: Golden, step: Any) -> None:
    case, model, _, _ = step
    if case != "train":
        return
    rows, named = golden.meta["extra"]["grad_norm_names"], dict(model.named_parameters())
    norms = golden.array("train.grad_norms").copy()
    compared = 0
    for i, key in enumerate(rows):
        parameter: nn.Parameter | None = named.get(MASK2FORMER.name(key) or "")
        if parameter is not None:
            norms[i] = -1.0 if parameter.grad is None else parameter.grad.norm().item()
            compared += 1
    assert compared == len(named)
    golden.check("train.grad_norms", norms)
    norm = model.tower.pyramid.up4[1]
    golden.check("train.bn.running_mean", norm.running_mean.numpy())
    golden.check("train.bn.running_var", norm.running_var.numpy())

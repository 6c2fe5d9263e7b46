"""tqdm from the image to one optimizer step, against the reference program, with weights from the reference's keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from load import Golden
from torch import Tensor, nn

from dgss.interfaces import Batch, Towers
from dgss.levels import whole
from dgss.losses.mask_losses import MaskLossSettings, mask_losses
from dgss.losses.matching import fixed, mask_targets
from dgss.methods.tqdm import Tqdm, TqdmPrediction, TqdmSettings
from dgss.towers.clip import image_trunk
from dgss.towers.clip_text import ClipText, text_transformer, tokenizer
from dgss.towers.text import ContextDecoderSettings
from dgss.towers.vision import PlainViT, Resize
from dgss.training.optimizer import OptimizerSettings, build_optimizer
from dgss.weights.reference import TQDM
from tests.goldens.replay import RecordedDraws, space, tensor

pytestmark = pytest.mark.golden("tqdm-clip", "tqdm-eva")


def settings_of(golden: Golden) -> TqdmSettings:
    head, looks = golden.config["decode_head"], golden.config["context_decoder"]
    pixel, train = head["pixel_decoder"], head["train_cfg"]
    shapes = golden.meta["models"]["model"]["state_dict"]
    first = "layers.0.ffns.0.layers.0.0.weight"
    layer = pixel["encoder"]["transformerlayers"]["attn_cfgs"][0]
    return TqdmSettings(
        width=head["feat_channels"],
        heads=layer["num_heads"],
        pixel_layers=pixel["encoder"]["num_layers"],
        decoder_layers=head["transformer_decoder"]["num_layers"],
        # the configuration states the inner width twice; the weights say which one the program took
        pixel_ffn=shapes[f"decode_head.pixel_decoder.encoder.{first}"][0],
        decoder_ffn=shapes[f"decode_head.transformer_decoder.{first}"][0],
        points_per_head=layer["num_points"],
        norm_groups=pixel["norm_cfg"]["num_groups"],
        contexts=shapes["contexts"][1],
        context_decoder=ContextDecoderSettings(
            width=looks["transformer_width"],
            heads=looks["transformer_heads"],
            layers=looks["transformer_layers"],
            dropout=looks["dropout"],
            gamma="reference",
        ),
        mask_losses=MaskLossSettings(
            class_weight=head["loss_cls"]["loss_weight"],
            mask_weight=head["loss_mask"]["loss_weight"],
            dice_weight=head["loss_dice"]["loss_weight"],
            no_object=head["loss_cls"]["class_weight"][-1],
            points=train["num_points"],
            oversample=train["oversample_ratio"],
            importance=train["importance_sample_ratio"],
        ),
        pixel_mean="all",
    )


def towers_of(golden: Golden) -> Towers:
    """The pair of towers of a golden's configuration, at its tiny size, with random weights."""
    given = golden.config.get("eva_clip")
    make = eva_pair if given else clip_pair
    config, size, taps, length, changes = make(golden)
    resize: Resize = "bicubic" if given else "bilinear"
    trunk = image_trunk(config, size, **changes)
    image = PlainViT(trunk, (0.0,) * 3, (1.0,) * 3, taps, resize, not given, config["embed_dim"])
    return Towers(image, ClipText(text_transformer(config), tokenizer(), length))


Pair = tuple[dict[str, Any], int, list[int], int, dict[str, Any]]
"""Configuration in open_clip's form, side in pixels, taps, text length, changes of timm's model."""


def clip_pair(golden: Golden) -> Pair:
    image, text = golden.config["backbone"], golden.config["text_encoder"]
    vision = {key: image[key] for key in ("width", "layers", "patch_size")}
    vision["head_width"] = image["width"] // image["heads"]
    config = {
        "embed_dim": text["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": vision,
        "text_cfg": {key: text[f"transformer_{key}"] for key in ("width", "heads", "layers")},
    }
    return config, image["input_resolution"], image["out_indices"], text["context_length"], {}


def eva_pair(golden: Golden) -> Pair:
    given, tower = golden.config["eva_clip"], golden.meta["extra"]["tower_config"]
    vision, text = tower["vision_cfg"], tower["text_cfg"]
    config = {
        "embed_dim": tower["embed_dim"],
        "vision_cfg": {
            "timm_model_name": "eva02_large_patch14_clip_336",
            "timm_pool": "token",
            "timm_proj": None,
        },
        "text_cfg": {key: text[key] for key in ("width", "heads", "layers")},
    }
    changes = {
        "patch_size": vision["patch_size"],
        "embed_dim": vision["width"],
        "depth": vision["layers"],
        "num_heads": vision["width"] // vision["head_width"],
        "mlp_ratio": vision["mlp_ratio"],
    }
    return config, given["image_size"], given["out_indices"], given["context_length"], changes


def build(golden: Golden) -> Tqdm:
    labels = space(golden.meta["extra"]["class_names"])
    model = settings_of(golden).build(towers_of(golden), labels, torch.Generator())
    state = {key: torch.from_numpy(np.array(value)) for key, value in golden.state_dict().items()}
    model.load_state_dict(TQDM.translate(state), strict=True)
    part = r"reg_E0\.(?!fpn)"  # the copy makes no levels
    copy = {key.replace("reg_E0.", "backbone."): value for key, value in state.items() if re.match(part, key)}
    assert model.teacher is not None
    frozen = {key.removeprefix("tower."): value for key, value in TQDM.translate(copy).items()}
    model.teacher.tower.load_state_dict(frozen, strict=True)
    return model


def batch_of(golden: Golden) -> Batch:
    labels = torch.from_numpy(golden.input("labels"))
    images = torch.from_numpy(golden.input("image"))
    return Batch(images, labels, torch.ones_like(labels, dtype=torch.bool), torch.arange(len(labels)))


def recorded(golden: Golden) -> RecordedDraws:
    """The draws of all predictions; those for matching are passed over, for fixed matching needs none."""
    counts = golden.meta["extra"]["draws"]["n_pos_per_image"]
    names = [name for name, spec in golden.meta["arrays"].items() if spec.get("role") == "draw"]
    names.sort(key=lambda name: int(name.removeprefix("draw")))
    draws = RecordedDraws(len(counts))
    for start in range(0, len(names), len(counts) + 2):
        for name in names[start + len(counts) : start + len(counts) + 2]:
            draws.add(tensor(golden, name), counts)
    return draws


def kept(stages: dict[str, Tensor], name: str) -> Callable[[Any, Any, Tensor], None]:
    def hook(module: Any, inputs: Any, output: Tensor) -> None:
        stages[name] = output

    return hook


@pytest.fixture(scope="module")
def stages(golden: Golden) -> dict[str, Tensor]:
    """Every stage in eval mode, by its name in the golden."""
    model, found = build(golden).eval(), dict[str, Tensor]()
    for prefix, layers in (("pd", model.pixel_decoder.layers), ("dec", model.mask_decoder.layers)):
        for i, layer in enumerate(layers):
            layer.register_forward_hook(kept(found, f"{prefix}_layer{i}"))
    assert isinstance(model.query_projection, nn.Module)
    model.query_projection.register_forward_hook(kept(found, "queries0"))
    memory: list[Any] = []
    model.pixel_decoder.register_forward_hook(lambda *answer: memory.append(answer[2]))
    images = batch_of(golden).images
    taps: list[Tensor] = []
    model.get_submodule("tower.pyramid").register_forward_pre_hook(lambda _, inputs: taps.extend(inputs[0]))
    with torch.no_grad():
        prediction = model(images)
        assert model.prompts is not None
        found |= {
            "text_raw": model.prompts().view(golden.array("text_raw").shape),
            "text_frozen": model.fixed_prompts(),
        }
        low, full = (prediction.scores(size) for size in (prediction.mask_logits[-1].shape[2:], images.shape[2:]))
    features = prediction.features
    found |= {"global_embedding": features.pooled[:, None], "visual_embedding": features.dense}
    found |= {f"tap{i}": tap for i, tap in enumerate(taps)}
    found |= {f"pyramid{i}": whole(level).detach() for i, level in enumerate(prediction.features.levels)}
    found |= {f"pd_out{i}": m for i, m in enumerate(memory[0].memories)} | {"mask_features": memory[0].mask_features}
    found |= {f"cls{i}": logits for i, logits in enumerate(prediction.class_logits)}
    found |= {f"mask{i}": logits for i, logits in enumerate(prediction.mask_logits)}
    found |= {"text_embedding": prediction.text, "score_map": prediction.score_map}
    found |= {"semantic_low": low, "argmax": full.argmax(1)}
    for b, scores in enumerate(full):
        found |= {f"semantic_full{b}": scores, f"semantic_full{b}_class_mean": scores.mean((1, 2))}
    return found


def test_every_stage_meets_the_reference(golden: Golden, stages: dict[str, Tensor]) -> None:
    later = ("loss_values", "bn_", "grad", "step")
    names = [name for name in golden.names() if not name.startswith(later)]
    assert len(names) > 20
    for name in names:
        golden.check(name, stages[name].numpy())


@pytest.fixture(scope="module")
def trained(golden: Golden) -> tuple[Tqdm, dict[str, float], dict[str, float]]:
    """One training step's model with gradients, its losses by the reference's names, its own losses."""
    model, batch, draws = build(golden).train(), batch_of(golden), recorded(golden)
    prediction = model(batch.images)
    own = model.losses(prediction, batch, draws)
    draws.assert_used()
    torch.stack(list(own.values())).sum().backward()
    values = {name: float(value.detach()) for name, value in own.items()}
    return model, per_layer(golden, model, prediction, batch), values


def per_layer(golden: Golden, model: Tqdm, prediction: TqdmPrediction, batch: Batch) -> dict[str, float]:
    """Every loss under the reference's name."""
    targets = mask_targets(batch.labels, len(model.labels))
    with torch.no_grad():
        terms = mask_losses(prediction, targets, fixed, model.settings.mask_losses, recorded(golden))
        found = {
            "reg.textual.loss": float(model.language_loss(prediction.text)),
            "scr_map.loss_seg": float(model.pixel_loss(prediction.score_map, batch.labels)),
            "reg.visual.loss": float(model.vision_loss(prediction, batch)),
        }
    for i, layer in enumerate(terms):
        prefix = "decode." if i == len(terms) - 1 else f"decode.d{i}."
        found |= {f"{prefix}loss_{short}": float(layer[name]) for name, short in
                  (("class", "cls"), ("mask", "mask"), ("dice", "dice"))}  # fmt: skip
    return found


def checked(golden: Golden, name: str, rows: list[str], found: dict[str, float]) -> None:
    """Compares the rows that were computed; the golden's own value stands for what is no part of the model."""
    want = golden.array(name)
    values = [found.get(row, want[i]) for i, row in enumerate(rows)]
    golden.check(name, np.asarray(values))


def test_losses_meet_the_reference(golden: Golden, trained: Any) -> None:
    _, found, own = trained
    rows = golden.meta["extra"]["loss_names"]
    assert set(rows) - set(found) == {"scr_map.acc_seg", "loss"}
    checked(golden, "loss_values", rows, found | {"loss": sum(own.values())})


def test_running_statistics_meet_the_reference(golden: Golden, trained: Any) -> None:
    norm = trained[0].tower.pyramid.up4[1]
    golden.check("bn_running_mean", norm.running_mean.numpy())
    golden.check("bn_running_var", norm.running_var.numpy())


def ours_by_theirs(golden: Golden, model: Tqdm) -> dict[str, nn.Parameter]:
    """Our parameters under the reference's names."""
    named = dict(model.named_parameters())
    pairs = {key: TQDM.name(key) for key in golden.meta["models"]["model"]["state_dict"]}
    return {key: named[name] for key, name in pairs.items() if name in named}


def in_their_shape(key: str, value: Tensor, like: np.ndarray) -> np.ndarray:
    """A value of ours under their key as they store it: CLIP's projection is the transpose of a linear layer's."""
    return (value.T if key == "backbone.proj" else value).detach().numpy().reshape(like.shape)


def test_gradients_meet_the_reference(golden: Golden, trained: Any) -> None:
    parameters = ours_by_theirs(golden, trained[0])
    gradients = {key: p.grad for key, p in parameters.items() if p.grad is not None}
    compared = golden.names("grad:")
    assert compared
    for name in compared:
        key = name.removeprefix("grad:")
        golden.check(name, in_their_shape(key, gradients[key], golden.array(name)))
    norms = {key: float(gradient.double().norm()) for key, gradient in gradients.items()}
    rows = golden.meta["extra"]["grad_norm_param_names"]
    want = golden.array("grad_norm_param_values")
    assert {row for row in rows if row not in norms} == {row for i, row in enumerate(rows) if want[i] < 0}
    checked(golden, "grad_norm_param_values", rows, norms)
    modules = golden.meta["extra"]["grad_norm_module_names"]
    checked(golden, "grad_norm_module_values", modules, {module: norm_of(gradients, module) for module in modules})


def norm_of(gradients: dict[str, Tensor], module: str) -> float:
    inside = [g for key, g in gradients.items() if key == module or key.startswith(f"{module}.")]
    return float(sum(g.double().square().sum() for g in inside) ** 0.5)


def test_one_optimizer_step_meets_the_reference(golden: Golden, trained: Any) -> None:
    model, step = trained[0], golden.meta["extra"]["optimizer_step"]
    parameters = ours_by_theirs(golden, model)
    before = {key: p.detach().clone() for key, p in parameters.items()}
    settings = {key: step[key] for key in ("lr", "weight_decay", "betas", "eps")}
    build_optimizer(model.parameter_groups(), OptimizerSettings.model_validate(settings)).step()
    names = golden.names("step:")
    assert names
    for name in names:
        key = name.removeprefix("step:")
        golden.check(name, in_their_shape(key, parameters[key], golden.array(name)))
    rows, want = golden.meta["extra"]["step_names"], golden.array("step_checksums").copy()
    for i, key in enumerate(rows):
        if key in parameters:
            change = parameters[key].detach().double() - before[key].double()
            want[i] = [parameters[key].detach().double().sum(), change.sum(), change.abs().sum()]
    golden.check("step_checksums", want)
    with torch.no_grad():
        for key, value in before.items():
            parameters[key].copy_(value)


def test_rates_and_decays_are_the_published_ones(golden: Golden) -> None:
    tables = {name: table for name, table in golden.meta["extra"].items() if name.startswith("optimizer_published_")}
    assert tables
    for name, table in tables.items():
        values = table["values"]
        model = build(golden)
        # the Cityscapes recipe alone spares the embeddings
        model.settings = model.settings.model_copy(update={"embedding_decay": not name.endswith("city")})
        ours = rates(model, *values["contexts"][:2])
        theirs = {key: row[:2] for key, row in values.items() if row[2] and not key.startswith("reg_E0")}
        assert {TQDM.name(key) for key in theirs} == set(ours), "each of our parameters has its row"
        for key, row in theirs.items():
            assert ours[str(TQDM.name(key))] == pytest.approx(row, rel=1e-6), f"{name}: {key}"


def rates(model: Tqdm, rate: float, decay: float) -> dict[str, list[float]]:
    """Learning rate and decay of every parameter that trains."""
    groups = model.parameter_groups()
    return {name: [rate * g.lr_scale, decay * g.decay_scale] for g in groups for name, _ in g.parameters}

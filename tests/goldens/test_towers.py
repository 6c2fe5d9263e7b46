"""The towers by themselves: position tables of other sizes, and EVA02-CLIP's image side stage by stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from load import Golden
from torch import Tensor, nn

from dgss.interfaces import Towers
from dgss.towers.clip import fill_pair, image_trunk
from dgss.towers.clip_text import ClipText, text_transformer, tokenizer
from dgss.towers.keys import EVA_IMAGE
from dgss.towers.vision import PlainViT


def pair_for(table: Tensor, clip: bool, text: bool, rows: int) -> Towers:
    """Towers for a table of a published file: as wide as it, with `rows` positions; the other side is tiny."""
    width, side = (64, 2) if text else (table.shape[-1], int((rows - 1) ** 0.5))
    vision: dict[str, object] = {"layers": 1, "width": width, "head_width": width // 2, "patch_size": 16}
    changes: dict[str, object] = {}
    if not clip:
        vision = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": None}
        changes = {"embed_dim": width, "depth": 1, "num_heads": 2}
    places, wide = (len(table), table.shape[1]) if text else (5, 8)
    config = {
        "embed_dim": 8,
        "vision_cfg": vision,
        "text_cfg": {"context_length": places, "width": wide, "heads": 2, "layers": 1, "vocab_size": 8},
    }
    trunk = image_trunk(config, side * (16 if clip else 14), **changes)
    image = PlainViT(trunk, (0.0,) * 3, (1.0,) * 3, (0,) * 4, text_width=8)
    return Towers(image, ClipText(text_transformer(config), tokenizer(), rows if text else None))


@pytest.mark.golden("tqdm-load")
def test_position_tables_are_resized_as_the_reference_does(golden: Golden) -> None:
    """Each table within a published file. mutation: `fill_pair` resizes in another way, or keeps other text places."""
    names = golden.names()
    assert names
    for name in names:
        table, rows = torch.from_numpy(golden.input(name)), golden.array(name).shape[-2]
        clip, text = name.startswith("clip"), name.startswith("clip_text")
        towers = pair_for(table, clip, text, rows)
        both = nn.ModuleDict({"visual": towers.image, "text": towers.text})
        state = {
            key.replace("text.model.", "text."): torch.zeros_like(value)
            for key, value in both.state_dict().items()
            if ".pyramid." not in key
        }
        ours, theirs = "visual.trunk.pos_embed", f"visual.{'positional_embedding' if clip else 'pos_embed'}"
        ours, theirs = ("text.positional_embedding",) * 2 if text else (ours, theirs)
        del state[ours]
        fill_pair(towers, {**state, theirs: table}, "bilinear" if clip else "bicubic", "a file")
        found = both.state_dict()[ours.replace("text.", "text.model.")]
        golden.check(name, (found[0] if clip and not text else found).numpy())


@pytest.mark.golden("eva02-clip-vision")
@pytest.mark.parametrize("form", ["true", "port"])
def test_every_stage_of_eva02_clip_meets_the_reference(golden: Golden, form: str) -> None:
    config = golden.config
    trunk = image_trunk(
        {
            "embed_dim": config["output_dim"],
            "vision_cfg": {"timm_model_name": "eva02_large_patch14_clip_336", "timm_pool": "token", "timm_proj": None},
        },
        config["img_size"],
        patch_size=config["patch_size"],
        embed_dim=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        scale_attn_inner=form == "true",
    )
    tower = PlainViT(trunk, (0.0,) * 3, (1.0,) * 3, range(4), text_width=config["output_dim"]).eval()
    state = EVA_IMAGE.translate({key: torch.from_numpy(np.array(v)) for key, v in golden.state_dict().items()})
    unknown = tower.load_state_dict(state, strict=False)
    assert all("pyramid" in key for key in unknown.missing_keys)
    # the port is the tower without the inner norm, on the same tensors
    assert all(form == "port" and "attn.norm" in key for key in unknown.unexpected_keys)
    found: dict[str, Tensor] = {}
    for number, block in enumerate(tower.blocks):
        block.register_forward_hook(lambda _, __, out, name=f"{form}.block{number}": found.update({name: out}))
    images = torch.from_numpy(golden.input("image"))
    with torch.no_grad():
        features = tower(images)
        normed = trunk.norm(found[f"{form}.block{config['depth'] - 1}"])
    assert features.pooled is not None and features.dense is not None
    found |= {"true.normed": normed, "true.embedding": features.pooled}
    projected = features.dense.flatten(2).transpose(1, 2)
    found["true.projected_tokens"] = torch.cat([features.pooled[:, None], projected], 1)
    names = [name for name in golden.names(f"{form}.") if name in found]
    assert len(names) >= config["depth"]
    for name in names:
        golden.check(name, found[name].numpy())
    if form == "true":
        sine, cosine = trunk.rope.get_embed(tuple(side // config["patch_size"] for side in images.shape[2:])).chunk(
            2, 1
        )
        golden.check("rope.sin", sine.numpy())
        golden.check("rope.cos", cosine.numpy())

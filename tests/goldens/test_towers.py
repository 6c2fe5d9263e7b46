"""The towers by themselves: position tables of other sizes, and EVA02-CLIP's image side stage by stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from load import Golden
from torch import Tensor

from dgss.towers.clip import image_trunk
from dgss.towers.keys import EVA_IMAGE
from dgss.towers.vision import PlainViT, resize_positions


@pytest.mark.golden("tqdm-load")
def test_position_tables_are_resized_as_the_reference_does(golden: Golden) -> None:
    names = golden.names()
    assert names
    for name in names:
        table, rows = torch.from_numpy(golden.input(name)), golden.array(name).shape[-2]
        if name.startswith("clip_text"):
            golden.check(name, table[:rows].numpy())
            continue
        clip = name.startswith("clip")
        table = table[None] if clip else table
        old, new = (int((count - 1) ** 0.5) for count in (table.shape[1], rows))
        found = resize_positions(table, (old, old), (new, new), "bilinear" if clip else "bicubic")
        golden.check(name, (found[0] if clip else found).numpy())


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

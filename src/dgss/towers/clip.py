"""CLIP-like pairs: the image side by timm, the text side by open_clip, both described by open_clip's configurations.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; Sun et al.,
"EVA-CLIP", arXiv 2303.15389.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dgss.errors import DataError, RecipeError, nearest
from dgss.interfaces import TextTower

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours of OpenAI's training images, in [0, 1]; the EVA and open_clip models took them over."""


def pair_config(name: str) -> dict[str, Any]:
    """open_clip's description of a model by its name. Raises `RecipeError` for an unknown name."""
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise RecipeError(f"open_clip has no model {name!r}: {nearest(name, open_clip.list_models())}")
    return dict(config)


def image_trunk(config: Mapping[str, Any], size: int, drop_path: float = 0.0, **changes: Any) -> Any:
    """The ViT of timm that a configuration describes, with random weights, for squares of `size` pixels.

    Its head projects into text space. changes: further arguments of timm's model. Raises `RecipeError` for what is no
    plain ViT.
    """
    import timm

    vision, width = config["vision_cfg"], config["embed_dim"]
    common = {"img_size": size, "drop_path_rate": drop_path, "dynamic_img_size": True, **changes}
    if "timm_model_name" in vision:
        if vision.get("timm_proj") not in (None, "none"):
            raise RecipeError(f"the image side {vision['timm_model_name']} is no plain ViT with a head of its own")
        classes = 0 if vision.get("timm_proj") == "none" else width
        return timm.create_model(
            vision["timm_model_name"], num_classes=classes, global_pool=vision["timm_pool"], **common
        )
    if not isinstance(vision["layers"], int):
        raise RecipeError("the image side is a ResNet, no plain ViT")
    trunk: Any = timm.models.VisionTransformer(
        patch_size=vision["patch_size"],
        embed_dim=vision["width"],
        depth=vision["layers"],
        num_heads=vision["width"] // vision.get("head_width", 64),
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        pre_norm=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        act_layer="quick_gelu" if config.get("quick_gelu") else "gelu",
        global_pool="token",
        num_classes=width,
        **common,
    )
    trunk.head = nn.Linear(vision["width"], width, bias=False)  # CLIP's projection; timm's would have a bias
    return trunk


def text_transformer(config: Mapping[str, Any]) -> Any:
    """open_clip's text tower of a configuration, with random weights. Raises `RecipeError` for another library's."""
    from open_clip import CLIPTextCfg
    from open_clip.transformer import LayerNorm, QuickGELU, TextTransformer

    settings = CLIPTextCfg(**config["text_cfg"])
    if settings.hf_model_name:
        raise RecipeError(f"its text side is {settings.hf_model_name} of transformers, which is not supported")
    known = inspect.signature(TextTransformer).parameters.keys() & vars(settings).keys()
    return TextTransformer(
        **{name: getattr(settings, name) for name in known},
        output_dim=config["embed_dim"],
        act_layer=partial(QuickGELU if config.get("quick_gelu") else nn.GELU, **(settings.act_kwargs or {})),
        norm_layer=partial(LayerNorm, **(settings.norm_kwargs or {})),
    )


def tokenizer() -> Any:
    """CLIP's byte-pair tokenizer, whose vocabulary lies in open_clip's package."""
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


class ClipText(TextTower):
    """open_clip's text tower, frozen, which also takes embeddings: learned contexts stand after the start token.

    tokenizer: text to ids. length: places of the position table that are kept, None = all.
    """

    def __init__(self, model: Any, tokenizer: Any, length: int | None = None) -> None:
        super().__init__()
        if model.pool_type != "argmax" or model.attn_mask is None:
            raise RecipeError(f"text towers that pool by {model.pool_type!r} are not supported")
        self.model, self.tokenizer = model, tokenizer
        if length is not None:
            model.positional_embedding = nn.Parameter(model.positional_embedding.detach()[:length].clone())
        self.context_length: int = len(model.positional_embedding)
        self.token_width: int = model.width
        self.width: int = model.output_dim
        self.requires_grad_(False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Start, words, end, zeros up to the longest text: (K, T). Raises `DataError` where a text is too long."""
        ids = [[self.tokenizer.sot_token_id, *self.tokenizer.encode(t), self.tokenizer.eot_token_id] for t in texts]
        for text, each in zip(texts, ids, strict=True):
            if len(each) > self.context_length:
                raise DataError(
                    f"the text {text!r} has {len(each)} tokens with start and end, but the text tower reads "
                    f"{self.context_length}; shorten it"
                )
        longest = max(map(len, ids), default=0)
        device = self.model.positional_embedding.device
        return torch.tensor([each + [0] * (longest - len(each)) for each in ids], device=device)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (K, T) to token embeddings (K, T, D_t), before positions are added."""
        embedded: Tensor = self.model.token_embedding(ids)
        return embedded

    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """Token embeddings (K, n + T, D_t) to text embeddings (K, E), not normalised.

        Causal, so what is cut off behind the last end token changes nothing; the end token has the largest id.
        """
        model, places = self.model, embedded.shape[1]
        x = embedded + model.positional_embedding[:places]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:places, :places]))
        ends = ids.argmax(1) + places - ids.shape[1]
        pooled: Tensor = x[torch.arange(len(x), device=x.device), ends] @ model.text_projection
        return pooled

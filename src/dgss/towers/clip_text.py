"""The text side of CLIP-like pairs: open_clip's tower, with slots for learned contexts.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, Sec. 2.4.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dgss.errors import DataError, OptionalPackageError, RecipeError
from dgss.interfaces import TextTower
from dgss.towers.published import not_fetched


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


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as a text tower needs it.

    encode: a text to its ids, start and end included. start: how many stand before the words. pad: what fills a row.
    """

    encode: Callable[[str], list[int]]
    start: int = 1
    pad: int = 0


def tokenizer(model: str = "", config: Mapping[str, Any] | None = None) -> Tokenizer:
    """CLIP's byte pairs, whose vocabulary lies in open_clip's package, or what a model's configuration names instead.

    Raises `OptionalPackageError`, `WeightsError` where that needs another package or has to be fetched and cannot be.
    """
    import open_clip

    if config is None or not config["text_cfg"].get("hf_tokenizer_name"):
        pairs = open_clip.SimpleTokenizer()
        return Tokenizer(lambda text: [pairs.sot_token_id, *pairs.encode(text), pairs.eot_token_id])
    try:
        other: Any = open_clip.get_tokenizer(model)
    except ImportError as error:
        raise OptionalPackageError(
            f"the tokenizer of {model} is one of transformers; pip install transformers"
        ) from error
    except Exception as error:  # whatever stands between us and the hub
        raise not_fetched(f"the tokenizer of {model}", error, "fetch it once with a network") from error
    words = other.tokenizer

    def encode(text: str) -> list[int]:
        return list(words(other.clean_fn(text)).input_ids)  # neither cut nor padded

    return Tokenizer(encode, int(encode("road")[0] == words.bos_token_id), int(words.pad_token_id or 0))


class ClipText(TextTower):
    """open_clip's text tower, frozen, which also takes embeddings: learned contexts stand before the words.

    length: places of the position table that are kept, None = all.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, length: int | None = None) -> None:
        super().__init__()
        if length is not None and length > len(model.positional_embedding):
            raise RecipeError(
                f"tower.text_length = {length}: the text tower has {len(model.positional_embedding)} places"
            )
        if model.pool_type not in ("argmax", "last") or model.cls_emb is not None:
            raise RecipeError(f"text towers that pool by {model.pool_type!r} or append a class token are not supported")
        self.model, self.tokenizer, self.start = model, tokenizer, tokenizer.start
        if length is not None:
            model.positional_embedding = nn.Parameter(model.positional_embedding.detach()[:length].clone())
        self.context_length: int = len(model.positional_embedding)
        self.token_width: int = model.width
        self.width: int = model.output_dim
        self.requires_grad_(False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Start, words, end, padding up to the longest text: (K, T). Raises `DataError` where a text is too long."""
        ids = [self.tokenizer.encode(text) for text in texts]
        for text, each in zip(texts, ids, strict=True):
            if len(each) > self.context_length:
                raise DataError(
                    f"the text {text!r} has {len(each)} tokens with start and end, but the text tower reads "
                    f"{self.context_length}; shorten it"
                )
        longest, device = max(map(len, ids), default=0), self.model.positional_embedding.device
        return torch.tensor([each + [self.tokenizer.pad] * (longest - len(each)) for each in ids], device=device)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (K, T) to token embeddings (K, T, D_t), before positions are added."""
        embedded: Tensor = self.model.token_embedding(ids)
        return embedded

    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """Token embeddings (K, n + T, D_t) to text embeddings (K, E), not normalised."""
        model, last = self.model, self.model.pool_type == "last"
        # the end token has the largest id (CLIP), or the last place is read, padding or not (SigLIP)
        ends = torch.full_like(ids[:, 0], -1) if last else ids.argmax(1) + embedded.shape[1] - ids.shape[1]
        if last or model.attn_mask is None:  # without a causal mask what stands behind the end counts, too
            rest = ids.new_full((len(ids), self.context_length - embedded.shape[1]), self.tokenizer.pad)
            embedded = torch.cat([embedded, self.embed(rest)], 1)
        places = embedded.shape[1]
        mask = None if model.attn_mask is None else model.attn_mask[:places, :places]
        x = model.ln_final(model.transformer(embedded + model.positional_embedding[:places], attn_mask=mask))
        pooled: Tensor = x[torch.arange(len(x), device=x.device), ends]
        projection = model.text_projection
        if projection is None:
            return pooled
        projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return projected

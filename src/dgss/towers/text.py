"""Class names as vectors: learned prompts, fixed prompts, and text that looks at the image.

Learned prompts: CoOp (Zhou et al., IJCV 2022, Sec. 3.2, Eq. 3). Text that looks at the image: DenseCLIP (Rao et al.,
CVPR 2022, Sec. 3.3, post-model prompting, Eq. 4 and 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any, Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from dgss.errors import DataError, RecipeError
from dgss.interfaces import TextTower, Towers
from dgss.labels import LabelSpace
from dgss.towers.base import drop_paths


@dataclass(frozen=True)
class TowerOutline:
    """What a method's settings are checked against, known before any tower is built.

    text: None without a text partner, "unknown" where it is to be built first. temperature, drop_path: whether the
    image tower states one, has any.
    """

    text: TextTower | Literal["unknown"] | None
    temperature: bool
    drop_path: bool

    @classmethod
    def of(cls, towers: Towers) -> TowerOutline:
        """The outline of towers that are built."""
        text = None if towers.image.text_width is None else towers.text
        return cls(text, towers.image.temperature is not None, bool(drop_paths(towers.image)))

    def check(self, settings: Fitted, labels: LabelSpace) -> None:
        """Raises one `RecipeError` with everything in a method's settings that does not fit."""
        if misfits := settings.misfits(self, labels):
            raise RecipeError("; ".join(f"method.{misfit}" for misfit in misfits))

    def unread(self, names: Sequence[str], template: str, contexts: int, init: str | None) -> list[str]:
        """What the text tower cannot read of a method's `template` and `contexts`, one line each, the field first."""
        text = self.text
        if text == "unknown":
            return []
        if text is None:
            return ["name: needs an image tower with a text partner; choose another tower, e.g. mini"]
        checks: dict[str, tuple[object, Callable[[], object]]] = {
            "template": (template, lambda: text.tokens(in_template(names, template))),
            "contexts": (contexts, lambda: learned_ids(text, names, contexts, init) if contexts else None),
        }
        found = []
        for field, (value, check) in checks.items():
            try:
                check()
            except (RecipeError, DataError) as error:
                found.append(f"{field} = {shortened(value)}: {error}")
        return found


class Fitted(Protocol):
    """A method's settings that know what they fit."""

    def misfits(self, towers: TowerOutline, labels: LabelSpace) -> list[str]:
        """One line each, the field to blame first."""


class LearnedPrompts(nn.Module):
    """One row of learned contexts, shared by all classes, between the start token (if any) and each class name.

    contexts: how many (at least 1). init: a phrase of as many tokens whose embeddings they start from; without one
    they are drawn from a normal of deviation 1, cut at 2.
    """

    ids: Tensor
    cached: Tensor | None
    cached_for: Tensor | None

    def __init__(self, text: TextTower, names: Sequence[str], contexts: int, init: str | None = None) -> None:
        super().__init__()
        ids = learned_ids(text, names, contexts, init)
        # the method owns the tower: registered here too, it would be saved twice
        self._text = (text,)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("cached", None, persistent=False)
        self.register_buffer("cached_for", None, persistent=False)
        self.contexts = nn.Parameter(torch.empty(1, contexts, text.token_width))
        nn.init.trunc_normal_(self.contexts, std=1.0, a=-2.0, b=2.0)
        if init is not None:
            with torch.no_grad():
                self.contexts.copy_(text.embed(text.tokens([init]))[:, text.start : text.start + contexts])

    def forward(self) -> Tensor:
        """The prompts' embeddings (K, E), not normalised; with gradient to the contexts.

        Where nothing trains they are encoded once, in full precision, until the contexts change: an image of many
        windows asks for the same text again and again.
        """
        if self.training or torch.is_grad_enabled():
            return self._encode()
        # by value: torch's count of changes misses steps of a fused optimizer
        if self.cached is None or self.cached_for is None or not torch.equal(self.cached_for, self.contexts):
            with _for_everyone(self.contexts.device):
                self.cached, self.cached_for = self._encode(), self.contexts.clone()
        return self.cached

    def _encode(self) -> Tensor:
        text = self._text[0]
        words = text.embed(self.ids)  # (K, T, D_t)
        contexts = self.contexts.expand(len(words), -1, -1)
        return text.encode(torch.cat([words[:, : text.start], contexts, words[:, text.start :]], 1), self.ids)


class FixedPrompts(nn.Module):
    """The class names in a template, encoded once: on first use, for weights may be loaded after building."""

    ids: Tensor
    cached: Tensor | None

    def __init__(self, text: TextTower, names: Sequence[str], template: str) -> None:
        super().__init__()
        self._text = (text,)  # not registered, as in `LearnedPrompts`
        self.register_buffer("ids", text.tokens(in_template(names, template)), persistent=False)
        self.register_buffer("cached", None, persistent=False)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.cached = None  # the tower's weights change with it
        super()._load_from_state_dict(*arguments)

    def forward(self) -> Tensor:
        """The prompts' embeddings (K, E), unit length, without gradient."""
        if self.cached is None:
            text = self._text[0]
            with _for_everyone(self.ids.device):
                self.cached = normalize(text.encode(text.embed(self.ids), self.ids), dim=1)
        return self.cached


@contextmanager
def _for_everyone(device: torch.device) -> Iterator[None]:
    """Around what is encoded once and kept: without gradient, in full precision whoever asks first, and also from
    within inference mode as a plain tensor, for one of that mode could not take part in a later backward."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def score_map(text: Tensor, dense: Tensor) -> Tensor:
    """S (B, K, h, w): the cosine of every pixel with every class (DenseCLIP, Sec. 3.2), in float32.

    text: (B, K, E); dense: (B, E, h, w), patches in text space; neither needs unit length.
    """
    with torch.autocast(text.device.type, enabled=False):
        length: Tensor = torch.linalg.vector_norm(dense.float(), dim=1, keepdim=True).clamp(min=1e-12)
        return torch.einsum("bke,behw->bkhw", normalize(text.float(), dim=2), dense.float()) / length


def in_template(names: Sequence[str], template: str) -> list[str]:
    """The template with each name in place of `{}`."""
    return [template.replace("{}", name) for name in names]


def learned_ids(text: TextTower, names: Sequence[str], contexts: int, init: str | None) -> Tensor:
    """The names' token ids (K, T). Raises `RecipeError` where contexts do not fit before them, or `init` not them."""
    ids = text.tokens(list(names))
    if contexts + ids.shape[1] > text.context_length:
        raise RecipeError(
            f"{contexts} contexts and class names of up to {ids.shape[1]} tokens do not fit the text tower's "
            f"{text.context_length} places: set contexts to {text.context_length - ids.shape[1]} or less"
        )
    words = contexts if init is None else text.tokens([init]).shape[1] - text.start - 1  # without start and end
    if words != contexts:
        raise RecipeError(
            f"the phrase {init!r} has {words} tokens, but {contexts} contexts are to start from it: "
            f"set contexts to {words}"
        )
    return ids


class ContextDecoderSettings(BaseModel):
    """The context decoder's size. gamma: the scale its answer starts with, per channel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=256, ge=1)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=3, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    # "reference": tqdm's program sets 1e-4 and then overwrites it by a normal of deviation 1, cut at 2
    gamma: float | Literal["reference"] = 1e-4

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width}: is no multiple of {self.heads} (heads)")
        return self


class ContextDecoder(nn.Module):
    """Text embeddings look at the image: T = t + gamma * decoder(t; [pooled, patches])."""

    def __init__(self, embedding_width: int, settings: ContextDecoderSettings) -> None:
        super().__init__()
        width = settings.width
        self.memory_projection = nn.Sequential(
            nn.LayerNorm(embedding_width), nn.Linear(embedding_width, width), nn.LayerNorm(width)
        )
        self.text_projection = nn.Sequential(nn.LayerNorm(embedding_width), nn.Linear(embedding_width, width))
        self.layers = nn.ModuleList(
            _ContextLayer(width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.out_projection = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embedding_width))
        self.gamma = nn.Parameter(torch.empty(embedding_width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if settings.gamma == "reference":
            nn.init.trunc_normal_(self.gamma, std=1.0, a=-2.0, b=2.0)
        else:
            nn.init.constant_(self.gamma, settings.gamma)

    def forward(self, text: Tensor, pooled: Tensor, dense: Tensor) -> Tensor:
        """text: (K, E); pooled: (B, E); dense: (B, E, h, w); none of them normalised -> T (B, K, E)."""
        visual = torch.cat([pooled[:, None], dense.flatten(2).transpose(1, 2)], 1)  # (B, 1 + h*w, E)
        memory = self.memory_projection(visual)
        x = self.text_projection(text).expand(len(visual), -1, -1)
        for layer in self.layers:
            x = layer(x, memory)
        out: Tensor = text + self.gamma * self.out_projection(x)
        return out


class _ContextLayer(nn.Module):
    """Self attention, cross attention, feed-forward; each normalised first and then added."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = _BiaslessAttention(width, heads, dropout)
        self.cross_attention = _BiaslessAttention(width, heads, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x: (B, K, width); memory: (B, N, width) -> (B, K, width)."""
        y = self.norm1(x)
        x = x + self.self_attention(y, y)
        x = x + self.cross_attention(self.norm2(x), memory)
        out: Tensor = x + self.dropout(self.mlp(self.norm3(x)))
        return out


class _BiaslessAttention(nn.Module):
    """Multi-head attention whose queries, keys and values have no bias; dropout after the output layer."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x: (B, K, width); memory: (B, N, width) -> (B, K, width)."""
        parts = (self.query(x), self.key(memory), self.value(memory))
        q, k, v = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(q, k, v)  # (B, heads, K, width / heads)
        out: Tensor = self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return out

"""Names in published files: rules from their keys to ours, and the rules of the towers.

A table is a list of rules (pattern of their key, our key, and where the two store it differently the change of the
value); the first pattern that fits a whole key wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from dgss.errors import WeightsError

Change = Callable[[Tensor], Tensor]
Rule = tuple[str, str] | tuple[str, str, Change]
Rules = tuple[Rule, ...]


@dataclass(frozen=True)
class KeyMap:
    """rules: pattern of their key to our key. left_out: patterns of keys that are not taken over, with the reason."""

    rules: Rules
    left_out: Mapping[str, str] = field(default_factory=dict)

    def name(self, key: str) -> str | None:
        """Our name of their `key`; None where it is left out. Raises `WeightsError` for an unknown one."""
        return self._rule(key)[0]

    def names(self, keys: Iterable[str], skip: Collection[str] = ()) -> dict[str, str]:
        """Those of their keys that are taken, and our name of each; without what is left out and without `skip`.

        Raises `WeightsError` for an unknown key.
        """
        left = set(skip)
        return {key: name for key in keys if key not in left and (name := self.name(key))}

    def reason(self, key: str) -> str:
        """Why their `key` is left out; empty where it is not."""
        return next((reason for pattern, reason in self.left_out.items() if re.fullmatch(pattern, key)), "")

    def unknown(self, keys: Iterable[str]) -> list[str]:
        """Those of their keys that are neither ours under another name nor left out."""
        known = [pattern for pattern, *_ in self.rules] + list(self.left_out)
        return [key for key in keys if not any(re.fullmatch(pattern, key) for pattern in known)]

    def translate(self, state: Mapping[str, Tensor], skip: Collection[str] = ()) -> dict[str, Tensor]:
        """Their state under our names and in our shapes, without what is left out and without `skip`.

        Raises `WeightsError` for an unknown key.
        """
        left, found = set(skip), {}
        for key, value in state.items():
            name, change = (None, _as_it_is) if key in left else self._rule(key)
            if name is not None:
                found[name] = change(value)
        return found

    def within(self, theirs: str, ours: str) -> KeyMap:
        """The same rules for a part of a larger file: `theirs` and `ours` stand before its keys."""
        rules: list[Rule] = [(re.escape(theirs) + rule[0], ours + rule[1], *rule[2:]) for rule in self.rules]
        return KeyMap(tuple(rules), {re.escape(theirs) + pattern: reason for pattern, reason in self.left_out.items()})

    def _rule(self, key: str) -> tuple[str | None, Change]:
        for pattern, ours, *change in self.rules:
            if found := re.fullmatch(pattern, key):
                return found.expand(ours), change[0] if change else _as_it_is
        if self.reason(key):
            return None, _as_it_is
        raise WeightsError(f"the checkpoint holds {key!r}, which is unknown here")


def _as_it_is(value: Tensor) -> Tensor:
    return value


CLIP_IMAGE = KeyMap(
    (
        (r"class_embedding", "trunk.cls_token", lambda value: value[None, None]),
        (r"positional_embedding", "trunk.pos_embed", lambda value: value[None]),
        (r"conv1\.weight", "trunk.patch_embed.proj.weight"),
        (r"ln_pre\.(.+)", r"trunk.norm_pre.\1"),
        (r"ln_post\.(.+)", r"trunk.norm.\1"),
        (r"proj", "trunk.head.weight", lambda value: value.T.contiguous()),
        (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(.+)", r"trunk.blocks.\1.norm\2.\3"),
        (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(.+)", r"trunk.blocks.\1.attn.qkv.\2"),
        (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.+)", r"trunk.blocks.\1.attn.proj.\2"),
        (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.+)", r"trunk.blocks.\1.mlp.fc1.\2"),
        (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.+)", r"trunk.blocks.\1.mlp.fc2.\2"),
    )
)
"""OpenAI's and open_clip's own ViT, to timm's names."""

EVA_IMAGE = KeyMap(
    (
        (r"(cls_token|pos_embed|patch_embed\.proj\..+|(?:norm|head)\..+)", r"trunk.\1"),
        (r"(blocks\.\d+\.(?:norm[12]|attn\.[qkv]?_?proj)\..+)", r"trunk.\1"),
        (r"(blocks\.\d+\.attn\.[qv])_bias", r"trunk.\1_proj.bias"),
        (r"(blocks\.\d+\.attn)\.inner_attn_ln\.(.+)", r"trunk.\1.norm.\2"),
        (r"(blocks\.\d+\.mlp)\.w1\.(.+)", r"trunk.\1.fc1_g.\2"),
        (r"(blocks\.\d+\.mlp)\.w2\.(.+)", r"trunk.\1.fc1_x.\2"),
        (r"(blocks\.\d+\.mlp)\.ffn_ln\.(.+)", r"trunk.\1.norm.\2"),
        (r"(blocks\.\d+\.mlp)\.w3\.(.+)", r"trunk.\1.fc2.\2"),
    ),
    {r"(?:blocks\.\d+\.attn\.)?rope\..+": "rotation tables, which follow from the size"},
)
"""EVA02-CLIP as its authors store it, to timm's names."""

CLIP_TEXT = KeyMap(
    ((r"((?:transformer|token_embedding|ln_final)\..+|positional_embedding|text_projection(?:\..+)?)", r"model.\1"),)
)
"""CLIP's text tower, whose names open_clip keeps."""

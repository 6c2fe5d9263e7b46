"""The small interfaces that every part fills, and nothing else.

Letters, here and in all shapes of the package: B images, C channels, H W pixels, h w cells, K classes, Q queries,
N tokens, D decoder width, E text width, L decoder layers, T prompt length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dgss.errors import DataError
from dgss.labels import LabelMap, LabelSpace
from dgss.levels import Level

Size = tuple[int, int]
"""(H, W) in pixels."""
Picture = NDArray[np.uint8]
"""(H, W, 3), RGB."""
ImageLike = str | Path | Image.Image | NDArray[Any]
"""What is read as an image: a file, a Pillow image, an array."""


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    image: (H, W, 3) uint8, RGB. label: (H, W) uint8, 255 ignored. number: counts the samples drawn in this training;
    everything random about the sample follows from (seed, number).
    """

    image: Picture
    label: LabelMap
    number: int


@dataclass(frozen=True)
class Batch:
    """B samples of one size.

    images: (B, 3, H, W) float32 in [0, 1], RGB. labels: (B, H, W) int64, 255 ignored. valid: (B, H, W) bool, False
    where padded. numbers: (B,) int64, the samples' numbers.
    Raises `DataError` where labels or valid have another type, or another size than their images.
    """

    images: Tensor
    labels: Tensor
    valid: Tensor
    numbers: Tensor

    def __post_init__(self) -> None:
        size = (len(self.images), *self.images.shape[2:])
        for what, tensor, kind in (("labels", self.labels, torch.int64), ("valid", self.valid, torch.bool)):
            if tensor.shape != size or tensor.dtype != kind:
                raise DataError(
                    f"{what} of a batch must be {kind} of shape {size}, as its images are {tuple(self.images.shape)}; "
                    f"got {tensor.dtype} of {tuple(tensor.shape)}: bring each map to its image's size, and to that type"
                )

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device` (the numbers stay on the CPU)."""
        return Batch(self.images.to(device), self.labels.to(device), self.valid.to(device), self.numbers)


class SampleGenerator:
    """One random stream per sample of a batch, each a pure function of (seed, sample number).

    Equal results for any number of workers and processes, and exact resumption, come from that.
    """

    def __init__(self, seed: int, numbers: Sequence[int] | Tensor) -> None:
        keys = [np.random.SeedSequence([seed, int(number)]).generate_state(1, np.uint64)[0] for number in numbers]
        # torch wants seeds below 2^63
        self._streams = [torch.Generator().manual_seed(int(key >> np.uint64(1))) for key in keys]

    def uniform(self, image: int, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """The next uniform numbers in [0, 1) of image `image` of the batch, float32, drawn on the CPU."""
        return torch.rand(tuple(shape), generator=self._streams[image]).to(device or torch.device("cpu"))


@dataclass(frozen=True)
class ImageFeatures:
    """What an image tower answers.

    levels: (B, C_l, H/s_l, W/s_l) each, finest first, some perhaps still to be doubled to that size. pooled: (B, E),
    the image in text space. dense: (B, E, h, w), patches in text space. Neither of the two is normalised; None where
    the tower has no text partner.
    """

    levels: tuple[Level, ...]
    pooled: Tensor | None = None
    dense: Tensor | None = None


class ImageTower(nn.Module, ABC):
    """An image encoder. It normalises its input and sets non-valid pixels to 0 after that.

    channels: per level, finest first. text_width: E, None without a text partner. blocks: where adapters
    and hooks attach. temperature: the scale s of s * cos(pixel, text) that the pair was trained with, None unknown.
    origin: what was made of a published file that the pair began from, for people; empty where there was none.
    """

    channels: tuple[int, ...]
    text_width: int | None = None
    temperature: float | None = None
    origin: str = ""
    blocks: nn.ModuleList

    @abstractmethod
    def forward(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""

    @property
    def embedding_trains(self) -> bool:
        """Whether what it says in text space changes in training."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @abstractmethod
    def frozen_copy(self, train: bool = False) -> ImageTower:
        """A copy that never trains, in no optimizer and no checkpoint; `train` keeps its drop path drawing.

        It answers `pooled` and `dense`; its levels may be left out.
        """


class TextTower(nn.Module, ABC):
    """A frozen text encoder with open slots for learned contexts.

    width: E of its embeddings. token_width: D_t of its tokens. context_length: how many tokens a prompt may have.
    start: how many tokens stand before the words.
    """

    width: int
    token_width: int
    context_length: int
    start: int = 1

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids (K, T), int64, padded; T is the longest text's. Raises `DataError` where a text is too long."""

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Ids (K, T) to token embeddings (K, T, D_t), before positions are added."""

    @abstractmethod
    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """Token embeddings (K, n + T, D_t) to text embeddings (K, E), not normalised.

        `ids` (K, T) tell padding and end token; n learned contexts stand right before the words.
        """


@dataclass(frozen=True)
class Towers:
    """An image tower and, where there is one, the text tower of the same joint space."""

    image: ImageTower
    text: TextTower | None = None


@dataclass(frozen=True)
class Prediction(ABC):
    """What a method answers. features: the image tower's, which it was made from."""

    features: ImageFeatures

    @abstractmethod
    def scores(self, size: Size) -> Tensor:
        """Class scores (B, K, *size), at least 0; the largest is the answer."""


@dataclass(frozen=True)
class PixelPrediction(Prediction):
    """What a classifier of pixels answers. logits: (B, K, h, w)."""

    logits: Tensor

    def scores(self, size: Size) -> Tensor:
        """The classes' probabilities (B, K, *size), softmax over K of the enlarged logits.

        In this order, as the per-pixel heads of mmseg do: the loss compares enlarged logits too.
        """
        return interpolate(self.logits, size, mode="bilinear", align_corners=False).softmax(1)


@dataclass(frozen=True)
class MaskPrediction(Prediction):
    """What a mask decoder answers: L + 1 predictions, the last is the one that counts.

    mask_logits: (B, Q, H/4, W/4) each. class_logits: (B, Q, K + 1) each, the last column is "no object".
    resize_first: whether masks are enlarged before (Mask2Former, VLTSeg) or after (tqdm) the sum over queries.
    """

    mask_logits: tuple[Tensor, ...]
    class_logits: tuple[Tensor, ...]
    resize_first: bool = True

    def scores(self, size: Size) -> Tensor:
        """The last prediction as class scores (B, K, *size): sum over queries of p(class) * sigmoid(mask)."""
        masks = self.mask_logits[-1]
        if self.resize_first:
            masks = interpolate(masks, size, mode="bilinear", align_corners=False)
        classes = self.class_logits[-1].softmax(-1)[..., :-1]  # (B, Q, K)
        scores = torch.einsum("bqk,bqhw->bkhw", classes, masks.sigmoid())
        return scores if self.resize_first else interpolate(scores, size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate (base rate x `lr_scale`) and a decay (base decay x `decay_scale`)."""

    name: str
    parameters: tuple[tuple[str, nn.Parameter], ...]
    lr_scale: float = 1.0
    decay_scale: float = 1.0


class Method(nn.Module, ABC):
    """What is predicted from what, and what is paid for errors. `labels`: the classes it answers in."""

    labels: LabelSpace

    @staticmethod
    @contextmanager
    def drawn_from(generator: torch.Generator) -> Iterator[None]:
        """Weights made on the CPU inside the block follow from `generator` alone; no global random state is touched."""
        with torch.random.fork_rng(devices=[]):
            # `torch.manual_seed` would seed every other device, too, and nobody would put those back
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator, device="cpu")))
            yield

    @abstractmethod
    def forward(self, images: Tensor, valid: Tensor | None = None) -> Prediction:
        """images: (B, 3, H, W) float in [0, 1], RGB; valid: (B, H, W) bool, None = all."""

    @abstractmethod
    def losses(self, prediction: Prediction, batch: Batch, generator: SampleGenerator) -> dict[str, Tensor]:
        """The weighted terms, scalars, by name; their sum is what is minimised."""

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Every parameter that trains, each exactly once, by its full name in this module."""

"""Scoring a model on one domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dgss.data.dataset import Dataset
from dgss.data.transforms import resize_pair
from dgss.evaluation.confusion import Confusion
from dgss.evaluation.panels import Panel
from dgss.evaluation.protocols import Protocol, View
from dgss.inference.predictor import Model
from dgss.inference.windows import InferenceSettings
from dgss.interfaces import Picture
from dgss.labels import LabelMap, LabelSpace

_AT_ONCE = 4  # images of one size through the model together


@dataclass(frozen=True)
class _Read:
    index: int
    image: Picture
    label: LabelMap


@dataclass(frozen=True)
class DomainResult:
    """The score of one domain.

    name, split, images: what was scored, how many images. confusion: the counts. labels: the classes of its rows.
    panels: a few images with truth and prediction. size: (H, W) of all images as scored, None where they differ.
    rule: the protocol's name, with the size where that is not the protocol's own: `drawn-128x64`. how: in words, which
    images were looked at in what way and which pixels count.
    """

    name: str
    split: str
    images: int
    confusion: Confusion
    labels: LabelSpace
    panels: tuple[Panel, ...] = ()
    size: tuple[int, int] | None = None
    rule: str = ""
    how: str = ""

    @property
    def miou(self) -> float:
        """Mean intersection over union in percent, not rounded."""
        return 100 * self.confusion.miou()

    @property
    def per_class(self) -> dict[str, float | None]:
        """Intersection over union in percent by class; None where a class is neither labelled nor predicted."""
        return {
            name: None if np.isnan(share) else 100 * float(share)
            for name, share in zip(self.labels.names, self.confusion.iou(), strict=True)
        }


def evaluate_domain(
    model: Model,
    dataset: Dataset,
    protocol: Protocol,
    fold: LabelMap | None = None,
    on_image: Callable[[int, int], None] | None = None,
    panels: int = 3,
) -> DomainResult:
    """Labels every image of `dataset` as `protocol` says and counts.

    fold: (256,) from the model's class numbers to the data set's, applied after arg-max; None takes the rule of the
    label spaces. on_image(done, total) is called after each image. panels: how many examples are kept, evenly chosen.
    """
    view, total = protocol.view(dataset.domain.name), len(dataset)
    fold = model.labels.fold(dataset.labels) if fold is None else fold
    shown = _spread(min(panels, total), total)
    confusion, kept, done = Confusion(dataset.labels), [], 0
    sizes: set[tuple[int, int]] = set()
    scored = slice(None, None, view.stride), slice(None, None, view.stride)
    for group in _groups(dataset, view):
        for read, found in zip(group, _label(model, [read.image for read in group]), strict=True):
            pair, prediction = dataset.pairs[read.index], fold[found]
            sizes.add((read.label.shape[0], read.label.shape[1]))
            confusion.add(read.label[scored], prediction[scored], str(pair.label))
            if read.index in shown:
                kept.append(Panel(pair.name, read.image, read.label, prediction, dataset.labels))
            done += 1
            if on_image is not None:
                on_image(done, total)
    size = sizes.pop() if len(sizes) == 1 else None
    return DomainResult(
        name=dataset.domain.name,
        split=dataset.split,
        images=total,
        confusion=confusion,
        labels=dataset.labels,
        panels=tuple(kept),
        size=size,
        rule=protocol.scored_as(dataset.domain.name, size),
        how=view.words + _looks(model.settings),
    )


def _spread(examples: int, total: int) -> set[int]:
    """So many of `total` places, each in the middle of its share."""
    return {(2 * place + 1) * total // (2 * examples) for place in range(examples)}


def _looks(settings: InferenceSettings) -> str:
    """What a model does beyond one look at the whole image, in words: protocols leave that to the recipe."""
    windows = f", in windows of {settings.window[1]}x{settings.window[0]}" if settings.window else ""
    return windows + (", averaged with the mirrored image" if settings.flip else "")


def _label(model: Model, images: list[Picture]) -> LabelMap:
    """Images (H, W, 3) of one size to class numbers (B, H, W) uint8."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
    return np.asarray(model.scores(pixels.contiguous()).argmax(1).to(torch.uint8).cpu().numpy(), np.uint8)


def _groups(dataset: Dataset, view: View) -> Iterator[list[_Read]]:
    """Neighbouring images of one size together, at most `_AT_ONCE`."""
    group: list[_Read] = []
    for index in range(len(dataset)):
        image, label = dataset.read(index)
        if view.size is not None:
            image, label = resize_pair(image, label, view.size)
        if group and (len(group) == _AT_ONCE or group[0].image.shape != image.shape):
            yield group
            group = []
        group.append(_Read(index, image, label))
    if group:
        yield group

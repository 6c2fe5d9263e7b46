"""Pixel semantic clarity: how far the pixels of a class stand from the other classes, layer by layer.

The talk on tqdm (Pak et al., ECCV 2024) plots it over the layers m of the pixel decoder, with and without text-to-pixel
attention. The paper's formula was not readable to us; this one is ours. Let x be the map of layer m at a labelled cell,
k the cell's class, K_j the mean of x over all cells of class j, and P the set of classes that occur:

    clarity of m = mean over labelled cells of ( cos(x, K_k) - mean over j in P, j != k, of cos(x, K_j) )

It lies between -2 and 2: near 0 where the labels say nothing about the pixels, 1 where every class is one direction at
right angles to the others, 2 for two classes in opposite directions. A cell is part of its own class's mean, so a class
of few cells seems a little clearer than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize, one_hot

from dgss.decoder.pixel_decoder import PixelDecoder
from dgss.errors import DataError, RecipeError
from dgss.interfaces import Method, Size
from dgss.labels import IGNORE


def layer_maps(method: Method, images: Tensor) -> tuple[Tensor, ...]:
    """The pixel decoder's maps x_0 ... x_M at its finest encoded stride, 8: (B, D, H/8, W/8) each, no gradient.

    method: in eval mode. images: (B, 3, H, W) float in [0, 1], RGB. x_0 goes into the first layer, x_m comes out of
    layer m; a norm behind the last layer is left out, since not every decoder has one. Raises `RecipeError` for a
    method without a pixel decoder.
    """
    decoder = getattr(method, "pixel_decoder", None)
    if not isinstance(decoder, PixelDecoder):
        raise RecipeError(f"{type(method).__name__} has no pixel decoder to look into; take a run of tqdm, for example")
    caught: list[Tensor] = []
    sizes: list[Size] = []
    with ExitStack() as hooks, torch.no_grad():
        for handle in (
            decoder.layers[0].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0])),
            *(layer.register_forward_hook(lambda _, inputs, x: caught.append(x)) for layer in decoder.layers),
            decoder.register_forward_hook(lambda _, inputs, memory: sizes.append(memory.memories[-1].shape[2:])),
        ):
            hooks.callback(handle.remove)
        method(images)
    h, w = sizes[0]
    return tuple(
        x[:, -h * w :].transpose(1, 2).reshape(len(x), -1, h, w) for x in caught
    )  # the finest level stands last


def cell_labels(labels: Tensor, size: Size, classes: int) -> Tensor:
    """Labels (B, H, W) int64 at `size` (h, w): the most frequent of each cell, ignored if that is 255; int64.

    Of equally frequent ones the lowest class wins, and any class against 255.
    """
    shares = one_hot(labels.clamp(max=classes), classes + 1).movedim(3, 1).double()  # 255 stands last
    cells = adaptive_avg_pool2d(shares, size).argmax(1)
    return cells.masked_fill(cells == classes, IGNORE)


class Clarity:
    """Adds up images one batch after another and answers the clarity of every layer; keeps sums by class alone.

    One pass is enough although K_j is only known at its end: the mean over cells of cos(x, K_j) is the mean of x / |x|
    times K_j / |K_j|. classes: how many there are.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._counts = torch.zeros(classes, dtype=torch.float64)
        self._sums = self._unit_sums = torch.zeros(0)

    def add(self, maps: Sequence[Tensor], labels: Tensor) -> None:
        """maps: x_0 ... x_M, (B, D, h, w) each. labels: (B, H, W) int64, 255 ignored; read as `cell_labels` says.

        Raises `DataError` for labels that are no class.
        """
        strays = labels[(labels != IGNORE) & ((labels < 0) | (labels >= self._classes))]
        if len(strays):
            raise DataError(
                f"label {int(strays[0])} is none of {self._classes} classes; give the labels as class numbers"
            )
        x = torch.stack(tuple(maps)).movedim(2, -1).flatten(1, 3).cpu().double()  # (M + 1, B*h*w, D)
        cells = cell_labels(labels.cpu(), (maps[0].shape[2], maps[0].shape[3]), self._classes).flatten()
        kept = cells != IGNORE
        x, cells = x[:, kept], cells[kept]
        if not len(self._sums):
            self._sums = x.new_zeros(len(x), self._classes, x.shape[2])
            self._unit_sums = self._sums.clone()
        self._counts += cells.bincount(minlength=self._classes)
        self._sums.index_add_(1, cells, x)
        self._unit_sums.index_add_(1, cells, normalize(x, dim=2))

    def values(self) -> tuple[float, ...]:
        """The clarity of x_0 ... x_M. Raises `DataError` before two classes have been seen."""
        present = self._counts > 0
        others = int(present.sum()) - 1
        if others < 1:
            raise DataError("clarity compares classes, but fewer than two were seen; add images with more of them")
        means = normalize(self._sums[:, present], dim=2)  # (M + 1, P, D)
        cosines = self._unit_sums[:, present] @ means.mT  # (M + 1, P, P): cos(x, K_j) summed over the cells of class k
        own = cosines.diagonal(dim1=1, dim2=2).sum(1)
        foreign = (cosines.sum((1, 2)) - own) / others
        return tuple(((own - foreign) / self._counts.sum()).tolist())

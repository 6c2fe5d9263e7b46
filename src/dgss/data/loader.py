"""Batches in a fixed order: the batch of a step is a pure function of (seed, step).

Exact resumption, and equal batches for any number of worker processes, follow from that alone; no state is kept.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dgss.data.dataset import Dataset
from dgss.data.transforms import Crop, TransformSettings, augment
from dgss.errors import DgssError
from dgss.interfaces import Batch, Sample

# what a generator is for; apart from the loss points, keyed by (seed, number) alone, and the steps' draws, which have 3
_ORDER, _AUGMENT = 1, 2


class Loader:
    """Augmented batches of a data set.

    dataset: the source. settings: how images are varied. size: (H, W) of every batch. seed: not below 0.
    workers: how many processes prepare batches ahead, 0 none. They change no bit.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TransformSettings,
        size: tuple[int, int],
        seed: int,
        batch_size: int,
        workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.size = size
        self.seed = seed
        self.batch_size = batch_size
        self.workers = workers

    def batch(self, step: int) -> Batch:
        """The batch of step `step` (0, 1, ...): samples step * batch_size to step * batch_size + batch_size - 1."""
        numbers = range(step * self.batch_size, (step + 1) * self.batch_size)
        crops = [self._crop(number) for number in numbers]
        images = np.ascontiguousarray(np.stack([crop.image for crop in crops]).transpose(0, 3, 1, 2))  # (B, 3, H, W)
        return Batch(
            images=torch.from_numpy(np.divide(images, 255, dtype=np.float32)),
            labels=torch.from_numpy(np.stack([crop.label for crop in crops]).astype(np.int64)),
            valid=torch.from_numpy(np.stack([crop.valid for crop in crops])),
            numbers=torch.tensor(list(numbers), dtype=torch.int64),
        )

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps start, start + 1, ..., stop - 1."""
        if self.workers == 0:
            yield from map(self.batch, range(start, stop))
            return
        # a generator of its own keeps the worker seeds, which nothing uses, out of the global random state
        prepared = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self.workers,
            generator=torch.Generator(),
            worker_init_fn=_start_worker,
        )
        for answer in prepared:
            if isinstance(answer, DgssError):
                raise answer
            yield answer

    def sample(self, number: int) -> Sample:
        """The sample number `number` before augmentation: every pass over the data is a permutation of its own."""
        turn, place = divmod(number, len(self.dataset))
        image, label = self.dataset.read(int(_order(self.seed, turn, len(self.dataset))[place]))
        return Sample(image, label, number)

    def _crop(self, number: int) -> Crop:
        sample = self.sample(number)
        return augment(sample.image, sample.label, self.settings, self.size, _generator(self.seed, number, _AUGMENT))


class _Steps(TorchDataset[Batch | DgssError]):
    """Step to batch, for worker processes; our errors travel as values, since a raised one would lose its one line."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getitem__(self, step: int) -> Batch | DgssError:
        try:
            return self._loader.batch(step)
        except DgssError as error:
            return error


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the training ends its workers itself
    cv2.setNumThreads(0)  # one process a core is enough


def _generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, purpose])))


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> NDArray[np.int64]:
    return _generator(seed, turn, _ORDER).permutation(count)

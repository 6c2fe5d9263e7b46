"""The batch of a step is a pure function of (seed, step)."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dgss.data.dataset import Dataset
from dgss.data.domains import domain
from dgss.data.loader import Loader, _start_worker
from dgss.data.transforms import TransformSettings
from dgss.errors import DataError
from dgss.interfaces import Batch
from tests.parts.standin import write_streets


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets data")
    write_streets(folder, count=5)
    return folder


def loader(root: Path, seed: int = 0, workers: int = 0, settings: TransformSettings | None = None) -> Loader:
    data = Dataset(domain("streets-game"), root, "train")
    return Loader(data, settings or TransformSettings(), (24, 40), seed, batch_size=3, workers=workers)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)


def test_shapes_ranges_and_numbers(root: Path) -> None:
    batch = loader(root).batch(4)
    assert batch.images.shape == (3, 3, 24, 40) and batch.images.dtype == torch.float32
    assert batch.images.min() >= 0 and 0.5 < batch.images.max() <= 1 and batch.images.is_contiguous()
    assert batch.labels.shape == batch.valid.shape == (3, 24, 40) and batch.labels.dtype == torch.int64
    assert batch.valid.dtype == torch.bool and batch.numbers.tolist() == [12, 13, 14]


def test_a_batch_holds_its_images_in_rgb_order(root: Path) -> None:  # mutation: BGR, or rows for channels
    plain = TransformSettings(scale_min=1, scale_max=1, class_limit=1, flip=0, jitter=0)
    made = loader(root, settings=plain)
    batch = made.batch(0)
    colours = torch.tensor(made.dataset.labels.colours).float() / 255
    torch.testing.assert_close(batch.images.permute(0, 2, 3, 1), colours[batch.labels])


def test_steps_in_any_order_give_the_same(root: Path) -> None:  # mutation: a generator kept between steps
    forward, backward = loader(root), loader(root)
    ahead = [forward.batch(step) for step in range(4)]
    behind = [backward.batch(step) for step in reversed(range(4))][::-1]
    assert all(same(one, other) for one, other in zip(ahead, behind, strict=True))
    resumed = list(loader(root).batches(2, 4))
    assert all(same(one, other) for one, other in zip(ahead[2:], resumed, strict=True))


def test_workers_change_no_bit_and_no_global_state(root: Path) -> None:  # mutation: global RNG, per-worker seeds
    np_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    alone, helped = list(loader(root).batches(1, 6)), list(loader(root, workers=2).batches(1, 6))
    assert len(alone) == len(helped) == 5
    assert all(same(one, other) for one, other in zip(alone, helped, strict=True))
    assert np.array_equal(np.random.get_state()[1], np_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_another_seed_gives_others(root: Path) -> None:  # mutation: seed unused in order or in augmentation
    one, other = loader(root, 0), loader(root, 1)
    assert not torch.equal(one.batch(0).images, other.batch(0).images)
    orders = [[made.sample(n).image.tobytes() for n in range(5)] for made in (one, other)]
    assert orders[0] != orders[1]


def test_each_pass_shows_every_image_once_in_its_own_order(root: Path) -> None:  # mutation: draws with replacement
    made = loader(root)
    images = [made.dataset.read(index)[0].tobytes() for index in range(5)]
    turns = [[images.index(made.sample(n).image.tobytes()) for n in range(5 * p, 5 * p + 5)] for p in range(6)]
    assert all(sorted(turn) == list(range(5)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 2


def test_two_samples_of_one_image_differ(root: Path) -> None:  # mutation: augmentation keyed by the image
    made = loader(root)
    batches = [made.batch(step).images for step in range(10)]
    assert len({image.numpy().tobytes() for batch in batches for image in batch}) == 30


def test_a_loader_can_be_sent_to_a_new_process(root: Path) -> None:  # mutation: a lambda or an open file inside
    made = loader(root)
    assert same(pickle.loads(pickle.dumps(made)).batch(1), made.batch(1))  # noqa: S301


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_one_line_of_our_own_error(tmp_path: Path, workers: int) -> None:  # mutation: raise in worker
    folder = write_streets(tmp_path, count=2)
    made = loader(tmp_path, workers=workers)
    next(folder.rglob("*_leftImg8bit.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"_leftImg8bit\.png is empty") as error:
        list(made.batches(0, 2))
    assert "\n" not in str(error.value)


def test_ctrl_c_is_left_to_the_training() -> None:  # mutation: workers die of the signal that the training notes
    before, threads = signal.getsignal(signal.SIGINT), cv2.getNumThreads()
    try:
        _start_worker(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
        cv2.setNumThreads(threads)

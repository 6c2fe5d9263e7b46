"""What every image tower shares: normalising, the frozen copy, the settings."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dgss.errors import DataError
from dgss.interfaces import ImageFeatures
from dgss.towers.base import FrozenCopy, NormalizedTower
from dgss.towers.shipped import MiniSettings, Normalize


class DropPath(nn.Module):
    """Stands for the one of timm: known by its name."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0 if self.training else x


class TinyTower(NormalizedTower):
    channels = (4,)

    def __init__(self) -> None:
        super().__init__((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
        self.convolution = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = DropPath()
        self.blocks = nn.ModuleList()

    def forward(self, images: Tensor, valid: Tensor | None = None) -> ImageFeatures:
        return ImageFeatures((self.drop(self.norm(self.convolution(self.normalise(images, valid)))),))


class Method(nn.Module):
    def __init__(self, tower: TinyTower, train: bool = False) -> None:
        super().__init__()
        self.tower = tower
        self.teacher = tower.frozen_copy(train)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))


def test_normalising_is_per_channel(images: Tensor) -> None:
    out = TinyTower().normalise(images)
    assert torch.allclose(out[:, 0], images[:, 0] * 2 - 1)
    assert torch.allclose(out[:, 1], images[:, 1] * 4 - 1)
    assert torch.equal(out[:, 2], images[:, 2])


def test_invalid_pixels_are_zero_after_normalising(images: Tensor) -> None:
    valid = torch.ones(2, 5, 7, dtype=torch.bool)
    valid[1, 3:] = False
    out = TinyTower().normalise(images, valid)
    assert torch.equal(out[1, :, 3:], torch.zeros(3, 2, 7))
    assert torch.equal(out[0], TinyTower().normalise(images)[0])
    assert not torch.equal(out[1, :, :3], torch.zeros(3, 3, 7))


def test_wrong_shapes_are_named(images: Tensor) -> None:
    with pytest.raises(DataError, match=r"\(B, 3, H, W\), got \(2, 1, 5, 7\)"):
        TinyTower().normalise(images[:, :1])
    with pytest.raises(DataError, match=r"valid pixels must have shape \(2, 5, 7\)"):
        TinyTower().normalise(images, torch.ones(2, 7, 5, dtype=torch.bool))


def test_a_frozen_copy_is_in_no_checkpoint_and_no_optimizer() -> None:
    tower = TinyTower()
    method, bare = Method(tower), nn.ModuleDict({"tower": tower})
    assert list(method.state_dict()) == list(bare.state_dict())
    assert [name for name, _ in method.named_parameters()] == [name for name, _ in bare.named_parameters()]
    method.load_state_dict(bare.state_dict(), strict=True)


def test_a_frozen_copy_never_changes(images: Tensor) -> None:
    method = Method(TinyTower())
    before = deepcopy(method.teacher.tower.state_dict())
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    for _ in range(3):
        method.train()
        method.tower.drop.eval()
        loss = (method.tower(images).levels[0] + 1).square().mean() + method.teacher(images).levels[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = method.teacher.tower.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not torch.equal(method.tower.convolution.weight, after["convolution.weight"])
    assert not method.teacher(images.clone().requires_grad_()).levels[0].requires_grad


@pytest.mark.parametrize("train", [False, True])
def test_drop_path_of_a_frozen_copy_draws_only_if_asked(images: Tensor, train: bool) -> None:
    method = Method(TinyTower(), train)
    method.train()
    assert not method.teacher.tower.norm.training
    assert bool((method.teacher(images).levels[0] == 0).all()) == train
    method.eval()
    assert not (method.teacher(images).levels[0] == 0).all()


def test_a_frozen_copy_moves_and_is_copied_with_its_method(images: Tensor) -> None:
    method = Method(TinyTower()).double()
    assert method.teacher.tower.convolution.weight.dtype == torch.float64
    assert method.teacher(images.double()).levels[0].dtype == torch.float64
    assert method.to("meta").teacher.tower.mean.device.type == "meta"
    twin = deepcopy(Method(TinyTower()))
    assert isinstance(twin.teacher.frozen_copy(), FrozenCopy)


def test_settings_refuse_what_is_unknown_or_out_of_range() -> None:
    with pytest.raises(ValidationError):
        MiniSettings(weight="none")
    with pytest.raises(ValidationError):
        MiniSettings(dense_stride=16)
    with pytest.raises(ValidationError):
        Normalize(mean=(123.0, 116.0, 103.0))
    with pytest.raises(ValidationError):
        Normalize(std=(0.0, 0.5, 0.5))

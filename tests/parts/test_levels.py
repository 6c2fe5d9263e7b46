"""A level that is doubled together with what reads it is the level that is read after it was doubled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d

from dgss.decoder.pixel_decoder import Projection
from dgss.levels import Doubled, Doubling, double, whole


def test_doubling_is_a_transposed_convolution_of_kernel_and_stride_two() -> None:
    x, weight, bias = torch.randn(2, 5, 3, 4), torch.randn(5, 7, 2, 2), torch.randn(7)
    torch.testing.assert_close(double(x, weight, bias), conv_transpose2d(x, weight, bias, stride=2))
    module = Doubling(5, 7)
    torch.testing.assert_close(module(x), nn.ConvTranspose2d.forward(module, x))
    assert set(module.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("bias", [True, False])
def test_reading_a_pending_level_is_reading_the_level(bias: bool) -> None:
    """Answers and the gradients of all that took part."""
    projection, up = Projection(6, 4, 2, bias).double(), Doubling(6, 6).double()
    gradients = []
    for made in (True, False):
        x = torch.linspace(-1, 1, 2 * 6 * 3 * 5, dtype=torch.float64).view(2, 6, 3, 5).requires_grad_()
        level = Doubled(x, up)
        answer = projection(whole(level) if made else level)
        (answer * torch.linspace(-2, 3, answer.numel()).view_as(answer)).sum().backward()
        taking_part: list[Tensor] = [x, *up.parameters(), *projection.parameters()]
        gradients.append([answer.detach(), *(leaf.grad.clone() for leaf in taking_part)])
        up.zero_grad(), projection.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1])

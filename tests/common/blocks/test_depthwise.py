# SPDX-License-Identifier: Apache-2.0
"""The depthwise convolution: values and gradients are those of torch's layer."""

import pytest
import torch
from torch import nn

from fieldfare.common.blocks import DepthwiseConv

LAYERS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_gradients_equal_those_of_torchs_layer(ndim: int, kernel: int) -> None:
    torch.manual_seed(0)
    ours = DepthwiseConv(4, ndim=ndim, kernel=kernel).double()
    theirs = LAYERS[ndim](4, 4, kernel, padding=kernel // 2, groups=4, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 4, *(5, 7, 6)[:ndim], dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        x = image.clone().requires_grad_()
        y = layer(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        found.append((y, x.grad, layer.weight.grad))
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)


def test_gradcheck() -> None:
    layer = DepthwiseConv(2).double()
    x = torch.randn(2, 2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x,)), (x, layer.weight)
    )


def test_a_frozen_input_or_weight_gets_no_gradient() -> None:
    layer = DepthwiseConv(2)
    layer(torch.randn(1, 2, 3, 3, 3)).sum().backward()
    assert layer.weight.grad is not None
    layer.weight.requires_grad_(False)
    x = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None


def test_autocast_computes_in_bfloat16_and_gives_float32_gradients() -> None:
    layer = DepthwiseConv(4)
    x = torch.randn(1, 4, 6, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert x.grad.dtype == layer.weight.grad.dtype == torch.float32


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        DepthwiseConv(4, kernel=2)

# SPDX-License-Identifier: Apache-2.0
"""Net2Net: the authors' tensors after each move, and functions that stay."""

import copy

import pytest
import torch
from published_search import REFERENCE, near, tensors
from torch import Tensor, nn

from fieldfare.common.blocks import MBConv
from fieldfare.common.blocks.depthwise import DepthwiseConv
from fieldfare.common.search.morph import copies, identity_after, widen

FILES = REFERENCE / "net2net_moves"


def conv_bn(found: dict[str, Tensor], name: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    kernel = found[f"{name}.kernel"].permute(3, 2, 0, 1).double()
    conv = nn.Conv2d(kernel.shape[1], len(kernel), kernel.shape[-1], padding="same", bias=False)
    norm = nn.BatchNorm2d(len(kernel), eps=1e-5)
    conv.weight = nn.Parameter(kernel.contiguous())
    norm.weight = nn.Parameter(found[f"{name}.gamma"].double())
    norm.bias = nn.Parameter(found[f"{name}.beta"].double())
    norm.running_mean = found[f"{name}.moving_mean"].double()
    norm.running_var = found[f"{name}.moving_variance"].double()
    return conv, norm.eval()


def same(conv: nn.Conv2d, norm: nn.BatchNorm2d, found: dict[str, Tensor], name: str) -> None:
    expected_conv, expected_norm = conv_bn(found, name)
    near(conv.weight, expected_conv.weight, 1e-10)
    for part in ("weight", "bias", "running_mean", "running_var"):
        near(getattr(norm, part), getattr(expected_norm, part), 1e-10)


def test_wider_is_the_published_move_and_keeps_the_function() -> None:
    found = tensors(FILES / "expected.safetensors")
    (a, norm_a), (b, norm_b) = (conv_bn(found, f"before.{name}") for name in "ab")
    net = nn.Sequential(a, norm_a, nn.ReLU(), b, norm_b, nn.ReLU()).eval()
    x, y = found["x"].double(), found["y"].double()
    near(net(x), y, 1e-10)
    widen(a, [norm_a], b, found["wider.indices"].long())
    same(a, norm_a, found, "wider.a")
    same(b, norm_b, found, "wider.b")
    near(net(x), y, 1e-10)
    assert (a.out_channels, norm_a.num_features, b.in_channels) == (11, 11, 11)


def test_deeper_keeps_the_function_behind_a_relu() -> None:
    found = tensors(FILES / "expected.safetensors")
    (a, norm_a), (b, norm_b) = (conv_bn(found, f"before.{name}") for name in "ab")
    net = nn.Sequential(a, norm_a, nn.ReLU(), b, norm_b, nn.ReLU()).eval()
    x, y = found["x"].double(), found["y"].double()
    layer, norm = identity_after(b, norm_b, net(x))
    near(nn.Sequential(net, layer, norm, nn.ReLU()).eval()(x), y, 1e-10)
    near(layer.weight, found["deeper.kernel"].permute(3, 2, 0, 1).double(), 1e-10)
    near(norm.running_mean, found["deeper.moving_mean"].double(), 1e-10)
    near(norm.weight, found["deeper.gamma"].double(), 1e-6)


def test_wider_linear_layers() -> None:
    found = tensors(FILES / "expected.safetensors")
    first, second = nn.Linear(7, 5).double(), nn.Linear(5, 3, bias=False).double()
    first.weight.data = found["fc.before.W"].T.double()
    first.bias.data = found["fc.before.bias"].double()
    second.weight.data = found["fc.next.before.W"].T.double()
    net = nn.Sequential(first, nn.ReLU(), second)
    before = net(found["fc.x"].double())
    widen(first, [], second, found["fc.indices"].long())
    near(first.weight, found["fc.wider.W"].T.double(), 1e-10)
    near(second.weight, found["fc.next.W"].T.double(), 1e-10)
    near(net(found["fc.x"].double()), before, 1e-10)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_middle_of_a_mobile_block_can_be_widened(dims: int) -> None:
    torch.manual_seed(0)
    block = MBConv(6, expansion=2, ndim=dims, norm="batch", attention="none").double().eval()
    for norm in block.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, 6, *[9] * dims).double()
    before, wider = block(x), copy.deepcopy(block)
    kinds = (nn.modules.conv._ConvNd, DepthwiseConv)
    expand, depthwise, project = (m for m in wider.layers if isinstance(m, kinds))
    norms = [m for m in wider.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    indices = copies(expand.out_channels, 17, torch.Generator().manual_seed(1))
    widen(expand, norms[:2], project, indices, [depthwise])
    near(wider(x), before, 1e-6)
    assert len(depthwise.weight) == 17


def test_copies_keep_every_channel() -> None:
    indices = copies(5, 9, torch.Generator().manual_seed(0))
    assert indices[:5].tolist() == [0, 1, 2, 3, 4]
    assert len(indices) == 9
    with pytest.raises(ValueError, match="not more than"):
        copies(5, 5)


def test_an_even_kernel_has_no_middle() -> None:
    with pytest.raises(ValueError, match="middle"):
        identity_after(nn.Conv2d(3, 3, 2), nn.BatchNorm2d(3))

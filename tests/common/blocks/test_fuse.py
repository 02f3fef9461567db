# SPDX-License-Identifier: Apache-2.0
"""fuse: the same outputs from fewer operations, for blocks, for wholes and for every backbone."""

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from fieldfare.common import backbones
from fieldfare.common.backbones import vanillanet
from fieldfare.common.blocks import DetailConv, PRepBN
from fieldfare.common.blocks.fuse import fuse
from fieldfare.common.blocks.prepbn import ChannelAffine

OWN = [
    name
    for name in timm.list_models()
    if timm.model_entrypoint(name).__module__.startswith(backbones.__name__)
]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def lived_in(model: nn.Module) -> nn.Module:
    """The model with norms as training leaves them: no mean is 0 and no variance 1."""
    for module in model.modules():
        if isinstance(module, NORMS):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.7, 1.3)
    return model.eval()


def assert_fused(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Fused outputs are the model's, the model is unchanged, fusing twice changes nothing."""
    before = copy.deepcopy(model.state_dict())
    fused = fuse(model)
    with torch.inference_mode():
        expected, found, again = model(x), fused(x), fuse(fused)(x)
    assert torch.isfinite(expected).all()
    limit = 1e-4 * (1 + float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= limit
    assert torch.equal(again, found)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    return fused


@pytest.mark.parametrize("name", OWN)
def test_every_backbone_gives_the_same_when_fused(name, monkeypatch):
    if name in vanillanet.VARIANTS:  # up to 600 M parameters: the same layers, an eighth as wide
        widths, pools = vanillanet.VARIANTS[name]
        narrow = (tuple(width // 8 for width in widths), pools)
        monkeypatch.setitem(vanillanet.VARIANTS, name, narrow)
    torch.manual_seed(0)
    size = 224 if name.startswith("slab") else 64
    model = lived_in(timm.create_model(name, num_classes=10))
    fused = assert_fused(model, torch.randn(1, 3, size, size))
    for module in fused.modules():
        assert not isinstance(module, PRepBN)
        assert not callable(getattr(module, "fuse", None))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_batch_norm_folds_into_the_convolution_before_it(ndim):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim](3, 4, 3, groups=1, bias=False)
    model = lived_in(nn.Sequential(conv, NORMS[ndim - 1](4), nn.ReLU()))
    fused = assert_fused(model, torch.randn(2, 3, *[7] * ndim))
    assert isinstance(fused[1], nn.Identity)


def test_a_prepbn_folds_into_the_linear_layer_behind_it_and_else_into_a_scale():
    model = nn.Sequential(PRepBN(6, 0), nn.Linear(6, 5), PRepBN(5, 0))
    fused = assert_fused(lived_in(model), torch.randn(2, 4, 6))
    assert [type(module) for module in fused] == [nn.Identity, nn.Linear, ChannelAffine]


def test_the_model_itself_may_be_what_fuses():
    assert type(assert_fused(DetailConv(3, 4), torch.randn(1, 3, 6, 6))) is nn.Conv2d


class Block(nn.Module):
    """A norm and the layer behind it, as attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = PRepBN(6, 0), nn.Linear(6, 6)

    def forward(self, x):
        return x + self.linear(self.norm(x))

    def reparameterize(self) -> None:
        from fieldfare.common.blocks.prepbn import fold

        self.norm = fold(self.norm, self.linear)


def test_a_block_that_reparameterizes_itself_does():
    model = nn.Sequential(Block(), nn.Sequential(Block()))
    fused = assert_fused(lived_in(model), torch.randn(2, 4, 6))
    assert isinstance(fused[0].norm, nn.Identity)
    assert isinstance(fused[1][0].norm, nn.Identity)
    root = fuse(lived_in(Block()))
    assert isinstance(root.norm, nn.Identity)


def test_a_norm_with_an_activation_inside_stays():
    model = lived_in(nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4)))
    fused = assert_fused(model, torch.randn(2, 3, 5, 5))
    assert isinstance(fused[1], BatchNormAct2d)


def test_shared_layers_and_other_orders_stay():
    conv, norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    shared = nn.Sequential(nn.Sequential(conv, norm), nn.Sequential(conv, nn.ReLU()))
    assert_fused(lived_in(shared), torch.randn(2, 4, 5, 5))
    transposed = nn.Sequential(nn.ConvTranspose2d(4, 4, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    assert_fused(lived_in(transposed), torch.randn(2, 4, 5, 5))
    twice = DetailConv(4, 4)
    fused = assert_fused(nn.Sequential(twice, nn.ReLU(), twice), torch.randn(1, 4, 5, 5))
    assert fused[0] is fused[2]


class Backwards(nn.Sequential):
    """Runs its children from the last to the first."""

    def forward(self, x):
        for module in reversed(self):
            x = module(x)
        return x


def test_a_sequence_that_runs_in_another_order_is_not_folded_by_order():
    model = lived_in(Backwards(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    assert_fused(model, torch.randn(2, 4, 5, 5))


def test_a_model_that_is_not_ready_says_so():
    with pytest.raises(ValueError, match="0 of 8 steps"):
        fuse(nn.Sequential(PRepBN(4, 8)))

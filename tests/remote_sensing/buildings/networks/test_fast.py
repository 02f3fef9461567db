# SPDX-License-Identifier: Apache-2.0
"""The fast network gives what the plain one gives."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d
from torch import nn

from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.fast import (
    FastBuildingNetwork,
    enlarging_kernel,
    fold_batch_norms,
)


def busy_norms(network: nn.Module) -> nn.Module:
    """Batch norms that do something: fresh ones are close to the identity."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return network.eval()


def build(depth: int = 4, **options) -> BuildingNetwork:
    torch.manual_seed(0)
    network = BuildingNetwork(NetworkConfig(**options), depth)
    busy_norms(network)
    return network


def assert_equal(found, expected, tolerance=2e-5):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == torch.float32
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference <= tolerance, f"{difference:.2e} of the largest value"


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"depth": 1},
        {"depth": 2},
        {"depth": 3, "encoder": "b0", "in_channels": 5},
        {"encoder": "mobilevitv2"},  # torch.fx cannot trace it whole
        {"architecture": "lraspp", "encoder": "vanillanet"},  # merges its layers
        {"encoder": "convnext_atto", "deep_supervision": False},  # layer norm
        {"architecture": "unet"},
        {"architecture": "unet", "encoder": "efficientvit_m2"},  # stem tapped by hooks, stride 64
        {"architecture": "lraspp", "encoder": "mobilenetv3"},
    ],
    ids=str,
)
def test_equals_the_network_without_any_batch_norm(options):
    network = build(**options)
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    quick = FastBuildingNetwork(network)
    image = torch.rand(2, network.config.in_channels, 100, 70)
    with torch.inference_mode():
        assert_equal(quick(image), network(image))
    assert norms(quick) == 0 < norms(network)
    after = network.state_dict()
    assert kept.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in kept.items())


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "b0"},
        {"encoder": "convnext_atto", "deep_supervision": False},
        {"architecture": "unet", "encoder": "b0"},
        {"architecture": "lraspp", "encoder": "b0"},
    ],
    ids=str,
)
def test_bfloat16_gives_the_same_to_its_precision(options):
    network = build(**options)
    image = torch.rand(1, 3, 64, 128)
    with torch.inference_mode():
        found, expected = FastBuildingNetwork(network, torch.bfloat16)(image), network(image)
    assert_equal(found, expected, tolerance=0.1)
    assert not torch.equal(found, expected)


@settings(max_examples=40)
@given(
    channels=st.integers(1, 4),
    outputs=st.integers(1, 4),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_enlarging_kernel_is_nearest_neighbour_and_convolution(
    channels, outputs, height, width, seed
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, channels, height, width, generator=generator, dtype=torch.float64)
    weight = torch.rand(outputs, channels, 3, 3, generator=generator, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
    found = F.conv_transpose2d(x, enlarging_kernel(weight), stride=2, padding=1)
    torch.testing.assert_close(found, expected)


def fold_and_compare(module: nn.Module) -> int:
    """Fold, see that nothing changed, and say how many batch norms are left."""
    busy_norms(module)
    x = torch.rand(1, 3, 9, 9)
    with torch.inference_mode():
        expected = module(x)
        fold_batch_norms(module)
        assert_equal(module(x), expected)
    return norms(module)


class Reused(nn.Module):
    """Reads a convolution before and after its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return x + self.norm(x)


class Twice(Reused):
    """Calls a convolution and its norm twice, once with something between them."""

    def forward(self, x):
        return self.norm(F.relu(self.conv(self.norm(self.conv(x)))))


class Branching(nn.Module):
    """Looks at its input's values, which torch.fx refuses."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.after = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.after(self.body(x)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("module", "left"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 0),
        (nn.Sequential(Conv2dSame(3, 6, 3, stride=2, groups=3), BatchNormAct2d(6)), 0),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), 1),
        (nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)), 1),  # scales its own weight
        (Reused(), 1),
        (Twice(), 1),
        (Branching(), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_norms_right_after_a_plain_convolution_are_folded(module, left):
    assert fold_and_compare(module) == left


def test_layers_that_hooks_look_at_are_left_alone():
    seen = []
    module = busy_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    module[1].register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    fold_batch_norms(module)
    output = module(torch.rand(1, 3, 9, 9))
    assert norms(module) == 1
    assert seen[0] is output


def test_training_mode_is_refused():
    quick = FastBuildingNetwork(build(1))
    assert not quick.training
    assert not any(parameter.requires_grad for parameter in quick.parameters())
    with pytest.raises(ValueError, match="for inference"):
        quick.train()
    assert quick.eval() is quick

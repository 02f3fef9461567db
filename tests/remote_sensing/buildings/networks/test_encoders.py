# SPDX-License-Identifier: Apache-2.0
"""Encoders by name: every registered backbone that has the strides a decoder needs, the others
refused; those of one image size on squares."""

import pytest
import timm
import torch

from fieldfare.common import backbones
from fieldfare.common.encoders import Encoder, create_encoder
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.encoders import (
    FAMILIES,
    FIXED,
    SIDE,
    STRIDES,
    SquareEncoder,
    encoder_of,
)

OWN = sorted(
    name
    for name in timm.list_models()
    if timm.model_entrypoint(name).__module__.startswith(backbones.__name__)
)
COARSE = ("slab_deit_small", "slab_deit_tiny")
FINE = ("eeea_net_cifar_a", "eeea_net_cifar_b", "eeea_net_cifar_c")
WIDE = [name for name in OWN if name.startswith("vanillanet_1")]


def test_registered_backbones_are_all_known_here():
    assert len(OWN) >= 30
    assert {*COARSE, *FINE} < set(OWN)


@pytest.mark.parametrize("name", sorted({*OWN} - {*COARSE, *FINE, *WIDE}))
def test_every_registered_backbone_has_the_strides_of_a_decoder(name):
    with torch.device("meta"):
        encoder = encoder_of(name, 3)
    assert set(STRIDES[1:]) <= set(encoder.strides)
    assert len(encoder.channels) == len(encoder.strides)


@pytest.mark.parametrize("name", [*COARSE, *FINE])
def test_backbones_without_them_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"{name} has no features at stride"):
        encoder_of(name, 3)


def test_families_are_of_every_kind_and_no_slab_runs_without_squares():
    assert len(set(FAMILIES.values())) == 9
    assert FAMILIES["SLAB"].startswith(FIXED)


class Averages(Encoder):
    """Means over 4 x 4 and 32 x 32 pixels, of images of one size."""

    channels, strides = (3, 3), (4, 32)

    def forward(self, x):
        assert x.shape[-2:] == (64, 64)
        return [torch.nn.functional.avg_pool2d(x, stride) for stride in self.strides]


def test_squares_are_put_together_where_they_were():
    image = torch.rand(2, 3, 96, 160)
    fine, coarse = SquareEncoder(Averages(), 64)(image)
    assert torch.allclose(fine, torch.nn.functional.avg_pool2d(image, 4), atol=1e-6)
    assert torch.allclose(coarse, torch.nn.functional.avg_pool2d(image, 32), atol=1e-6)


@torch.inference_mode()
def test_slab_swin_tiny_runs_on_any_size_and_equals_itself_on_a_square():
    torch.manual_seed(0)
    network = BuildingNetwork(NetworkConfig(architecture="lraspp", encoder="slab_swin_tiny")).eval()
    assert network(torch.rand(1, 3, 100, 300)).shape == (1, 2, 100, 300)
    inner = create_encoder("slab_swin_tiny", 3, img_size=SIDE).eval()
    inner.load_state_dict(network.encoder.inner.state_dict())
    image = torch.rand(1, 3, SIDE, SIDE)
    for one, other in zip(network.encoder(image), inner(image), strict=True):
        assert torch.equal(one, other)
    assert network.encoder.get_submodule("model") is network.encoder.inner.model

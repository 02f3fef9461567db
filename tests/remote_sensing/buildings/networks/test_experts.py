# SPDX-License-Identifier: Apache-2.0
"""Experts by pixel size: what starts equal, what is chosen, and the dense network of each."""

import dataclasses

import pytest
import torch
from torch import nn

from fieldfare.common import efficiency
from fieldfare.common.experts.conv import ExpertConv
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
    expert_of,
)
from fieldfare.remote_sensing.buildings.networks.experts import (
    OWN,
    Gate,
    Switch,
    nearest,
    spread,
    tensors_of,
)
from fieldfare.remote_sensing.buildings.networks.fast import FastBuildingNetwork

DENSE = NetworkConfig(encoder="mobilenetv3_small_050", decoder_channels=(16, 16, 16, 8, 8), gsd=0.3)
CONFIG = dataclasses.replace(DENSE, experts=(0.15, 0.6))


def images(count: int) -> torch.Tensor:
    return torch.rand((count, 3, 64, 128), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def unlike() -> BuildingNetwork:
    """Experts that differ in all their weights and statistics."""
    torch.manual_seed(0)
    network = BuildingNetwork(CONFIG).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if ".experts.1." in name and value.dtype.is_floating_point:
                value.add_(0.1 * torch.rand(value.shape))
    return network


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_at_first_every_expert_is_the_dense_network(depth):
    torch.manual_seed(0)
    dense = BuildingNetwork(DENSE, depth).eval()
    network = BuildingNetwork(CONFIG, depth).eval()
    network.load_state_dict(spread(dense.state_dict(), list(network.state_dict())))
    x = images(2)
    with torch.no_grad():
        expected = dense.all_depths(x)
        found = network.all_depths(x, torch.tensor([0, 1]))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_batch_of_both_is_each_image_through_its_own_dense_network(unlike):
    x, chosen = images(3), torch.tensor([1, 0, 1])
    with torch.no_grad():
        found = unlike(x, chosen)
        for place, number in enumerate(chosen.tolist()):
            alone = unlike.dense(number)(x[place : place + 1])
            torch.testing.assert_close(found[place : place + 1], alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found[:1], unlike(x[:1], torch.tensor([0])), atol=1e-2)


def test_a_dense_network_holds_its_own_expert_and_costs_what_one_without_does(unlike):
    plain = BuildingNetwork(DENSE)
    shape = (1, 3, 64, 64)
    assert efficiency.cost(unlike.dense(1), shape) == efficiency.cost(plain, shape)
    for number in (0, 1):
        dense = unlike.dense(number)
        assert dense.config == DENSE
        assert set(dense.state_dict()) == set(plain.state_dict())
        own = tensors_of(number, unlike.state_dict())
        head = unlike.get_submodule("segmentation_head").get_submodule(f"experts.{number}.0")
        assert torch.equal(own["segmentation_head.0.bias"], head.bias)


def test_cutting_and_folding_an_expert_are_those_of_its_dense_network(unlike):
    x = images(1)
    with torch.no_grad():
        cut = unlike.cut(2).dense(1)
        torch.testing.assert_close(cut(x), unlike.dense(1).cut(2)(x))
        fast = FastBuildingNetwork(unlike.dense(1))
        torch.testing.assert_close(fast(x), unlike(x, torch.tensor([1])), rtol=1e-3, atol=1e-4)


def test_only_the_expert_of_the_images_learns_and_all_share_the_rest():
    torch.manual_seed(0)
    network = BuildingNetwork(CONFIG).train()
    sum(maps.square().mean() for maps in network(images(2), torch.tensor([1, 1]))).backward()
    learning = {name for name, p in network.named_parameters() if p.grad is not None}
    experts = [name for name, _ in network.named_parameters() if ".experts." in name]
    assert learning == {n for n, _ in network.named_parameters()} - {
        n for n in experts if ".experts.0." in n
    }
    state = network.state_dict()
    first, second = (state[f"encoder.model.bn1.experts.{n}.running_mean"] for n in (0, 1))
    assert first.abs().max() == 0 < second.abs().max()


def test_switched_convolutions_are_the_expert_convolution_of_advmoe():
    """arXiv 2308.10110, as `fieldfare.common.experts` has it: one wide convolution, sliced."""
    torch.manual_seed(0)
    wide = ExpertConv(2, 4, 6, count=3, padding=1)
    gate = Gate()
    switch = Switch(nn.Conv2d(4, 6, 3, padding=1, bias=False), 3, gate)
    for expert, weight in zip(switch.experts, wide.weight.chunk(3), strict=True):
        expert.weight.data.copy_(weight)
    x = torch.rand(5, 4, 8, 8)
    gate.chosen = torch.tensor([2, 0, 2, 1, 0])
    torch.testing.assert_close(switch(x), wide(x, gate.chosen))


def test_untold_images_are_an_error():
    network = BuildingNetwork(CONFIG).eval()
    with pytest.raises(ValueError, match="must be told which expert"):
        network(images(1))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        *[(0.05, 0), (0.15, 0), (0.3, 0), (0.42, 0), (0.43, 1), (0.6, 1), (3.0, 1)],
        (None, 0),  # taken as the model's own
    ],
)
def test_a_raster_gets_the_nearest_expert_and_none_is_finer_than_the_model(size, expected):
    assert nearest((0.15, 0.6), size, 0.3) == expected
    assert expert_of(CONFIG, size) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": (0.6,)}, "at least two"),
        ({"experts": (0.3, float("nan"))}, "at least two"),
        ({"experts": (0.6, 0.15)}, "from fine to coarse"),
        ({"experts": (0.1, 0.2, 0.6)}, "0.1 and 0.2 m look alike to a model of 0.3 m"),
        ({"architecture": "unet"}, "only a whole U-Net"),
        ({"deep_supervision": False}, "only a whole U-Net"),
        ({"levels": 3}, "only a whole U-Net"),
    ],
)
def test_experts_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_an_encoder_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="an encoder of the kind of EfficientNet"):
        BuildingNetwork(dataclasses.replace(CONFIG, encoder="resnet18"))


def test_the_configuration_survives_a_file_and_a_plain_one_does_not_mention_experts():
    assert NetworkConfig.from_dict(CONFIG.to_dict()) == CONFIG
    assert "experts" not in DENSE.to_dict()


def test_experts_of_the_default_network_are_a_fiftieth_of_its_weights():
    network = BuildingNetwork(NetworkConfig(gsd=0.3, experts=(0.15, 0.6)))
    names = [name for name, _ in network.named_parameters() if ".experts.1." in name]
    extra = sum(network.get_parameter(name).numel() for name in names)
    assert 0.015 < extra / sum(p.numel() for p in network.parameters()) < 0.025
    assert len({name.split(".experts.")[0] for name in names}) == len(OWN)

# SPDX-License-Identifier: Apache-2.0
"""U-Net++ of many sizes on one set of weights."""

import dataclasses

import pytest
import torch

from fieldfare.common.elastic.genes import Choice
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
    depths_of,
)
from fieldfare.remote_sensing.buildings.networks.elastic import (
    SPACE,
    config_of,
    elastic_network,
    sort_channels,
)
from fieldfare.remote_sensing.buildings.networks.fast import FastBuildingNetwork

CONFIG = NetworkConfig(gsd=0.3)
WHOLE = SPACE.largest()


def choice(**genes: float) -> Choice:
    """The largest but for these."""
    return SPACE.canonical({**WHOLE, **genes})


MIXED = choice(output=4, nodes=0.5, head=0.25, early=3, middle=4, late=3, blocks5=2, kernel5=3)
SHALLOW = choice(output=3, nodes=0.75, early=4, blocks3=2, kernel2=3)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> ElasticNet:
    """With norms that are not all alike."""
    torch.manual_seed(0)
    found = elastic_network(CONFIG)
    for name, tensor in found.full.named_parameters():
        if name.endswith("weight") and tensor.ndim == 1:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return found.eval()


def test_there_are_31_536_sizes() -> None:
    assert SPACE.count() == 31_536


@torch.no_grad()
def test_the_largest_is_the_network_itself(net: ElasticNet, image: torch.Tensor) -> None:
    plain = BuildingNetwork(CONFIG).eval()
    net.full.load_state_dict(plain.state_dict())
    assert torch.equal(net(image), plain(image))
    assert config_of(WHOLE, CONFIG) == CONFIG
    net.set(choice(output=3))
    assert torch.equal(net(image), plain.cut(3)(image))


@torch.no_grad()
def test_sorting_changes_the_order_and_not_what_is_computed(
    net: ElasticNet, image: torch.Tensor
) -> None:
    whole = net.full
    before, norm = whole.all_depths(image), whole.get_submodule("decoder.blocks.x_1_3.conv2.1")
    old = norm.weight.clone()
    sort_channels(whole)
    for ours, theirs in zip(whole.all_depths(image), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.equal(norm.weight, old)
    assert torch.equal(norm.weight.sort().values, old.sort().values)
    read = whole.get_submodule("encoder.model.blocks.4.1.conv_pwl").weight.abs().sum((0, 2, 3))
    made = whole.get_submodule("encoder.model.blocks.4.1.bn2").weight.abs()
    assert bool(((read * made).diff() <= 1e-6).all())


@torch.no_grad()
@pytest.mark.parametrize("one", [SPACE.smallest(), MIXED, SHALLOW], ids=["least", "mixed", "L3"])
def test_what_is_cut_out_is_what_ran_and_its_file_says_all(
    net: ElasticNet, image: torch.Tensor, one: Choice
) -> None:
    net.set(one)
    own = net.extract(one)
    assert torch.equal(net(image), own(image))
    again = BuildingNetwork(NetworkConfig.from_dict(own.config.to_dict())).eval()
    again.load_state_dict(own.state_dict())
    assert torch.equal(again(image), own(image))
    assert depths_of(own.config) == tuple(range(1, one.number("output") + 1))
    torch.testing.assert_close(FastBuildingNetwork(own)(image), own(image), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_kept_channels_are_the_first_of_every_origin(net: ElasticNet) -> None:
    own = net.extract(choice(nodes=0.5))
    name = "decoder.blocks.x_1_3.conv1.0"
    whole, part = net.full.get_submodule(name).weight, own.get_submodule(name).weight
    # x_1_2 of 24, x_2_3 and x_3_3 of 16, the feature of 16
    origins = ((0, 12), (24, 8), (40, 8), (56, 16))
    kept = torch.cat([torch.arange(start, start + count) for start, count in origins])
    assert part.shape[0] == 8
    assert torch.equal(part, whole[:8, kept])


def test_a_step_trains_what_ran_and_nothing_else(net: ElasticNet, image: torch.Tensor) -> None:
    net.train().set(SHALLOW)
    maps = net(image)
    assert len(maps) == 3
    torch.stack([one.mean() for one in maps]).sum().backward()
    grad = {name: tensor.grad for name, tensor in net.full.named_parameters()}
    assert grad["segmentation_head.0.weight"] is None
    inner = grad["encoder.model.blocks.1.1.conv_pwl.weight"]  # 24 inputs, four of six times
    assert inner is not None
    assert bool((inner[:, :96] != 0).any())
    assert not bool((inner[:, 96:] != 0).any())


@pytest.mark.parametrize("gene", SPACE.genes)
def test_a_smaller_value_is_a_smaller_network(gene: str) -> None:
    def parameters(one: Choice) -> int:
        with torch.device("meta"):
            network = BuildingNetwork(config_of(one, CONFIG))
        return sum(tensor.numel() for tensor in network.parameters())

    found = [parameters(choice(**{gene: value})) for value in SPACE.genes[gene]]
    assert found == sorted(set(found))


def test_other_networks_are_refused() -> None:
    for wrong in ({"encoder": "lite1"}, {"architecture": "unet"}, {"levels": 3}):
        with pytest.raises(ValueError, match="only a whole U-Net"):
            elastic_network(dataclasses.replace(CONFIG, **wrong))
    with pytest.raises(ValueError, match="levels 3: unet cannot"):
        NetworkConfig(architecture="unet", levels=3)
    with pytest.raises(ValueError, match="only the stages of an EfficientNet-Lite"):
        BuildingNetwork(NetworkConfig(encoder="b0", encoder_kernels=(3,) * 7))
    with pytest.raises(ValueError, match="its stages have blocks"):
        BuildingNetwork(NetworkConfig(encoder_blocks=(1, 2, 2, 4, 3, 4, 1)))

# SPDX-License-Identifier: Apache-2.0
"""Reversible U-Nets of many sizes on one set of weights."""

import dataclasses
import json

import pytest
import torch

from fieldfare.common.elastic.genes import Choice
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.medical.networks.config import PRESETS, NetworkConfig
from fieldfare.medical.networks.create import create_network
from fieldfare.medical.networks.elastic import config_of, elastic_network, sort_channels, space_of

TINY = NetworkConfig(
    spacing=4.0,
    channels=(16, 32),
    blocks=(1, 3),
    decoder_blocks=(2,),
    expansion=2,
    deep_supervision=True,
)
SPACE = space_of(TINY)
WHOLE = SPACE.largest()


def choice(**genes: float) -> Choice:
    """The largest but for these."""
    return SPACE.canonical({**WHOLE, **genes})


MIXED = choice(decoder0=1, expansion0=0.5, blocks1=2, expansion1=1.5)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 4, 8, 16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> ElasticNet:
    """With norms that are not all alike."""
    torch.manual_seed(0)
    found = elastic_network(TINY)
    for tensor in found.full.parameters():
        if tensor.ndim == 1:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return found.eval()


def test_the_packaged_network_has_4_608_sizes() -> None:
    assert space_of(PRESETS["reversible_small"]).count() == 4_608
    assert SPACE.genes == {
        "decoder0": (1, 2),
        "expansion0": (0.5, 1.0, 1.5, 2.0),
        "blocks1": (1, 2, 3),
        "expansion1": (0.5, 1.0, 1.5, 2.0),
    }


@torch.no_grad()
def test_the_largest_is_the_network_itself(net: ElasticNet, image: torch.Tensor) -> None:
    plain = create_network(TINY).eval()
    net.full.load_state_dict(plain.state_dict())
    assert config_of(WHOLE, TINY) == TINY
    assert torch.equal(net(image), plain(image))


@torch.no_grad()
def test_sorting_changes_the_order_and_not_what_is_computed(
    net: ElasticNet, image: torch.Tensor
) -> None:
    block = net.full.encoder[1].first[0].layers
    before, old = net(image), block[4].weight.clone()
    sort_channels(net.full)
    torch.testing.assert_close(net(image), before, rtol=1e-4, atol=1e-4)
    assert not torch.equal(block[4].weight, old)
    # groups of four channels stay together
    rows = {tuple(sorted(row)) for row in old.view(8, 4).tolist()}
    assert {tuple(sorted(row)) for row in block[4].weight.view(8, 4).tolist()} == rows
    read = block[6].weight.abs().flatten(1).sum(dim=0) * block[4].weight.abs()
    assert bool((read.view(8, 4).sum(dim=1).diff() <= 1e-6).all())


@torch.no_grad()
@pytest.mark.parametrize("one", [SPACE.smallest(), MIXED, WHOLE], ids=["least", "mixed", "whole"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_what_is_cut_out_is_what_ran_and_its_file_says_all(
    image: torch.Tensor, one: Choice, dropout: float
) -> None:
    torch.manual_seed(0)
    net = elastic_network(dataclasses.replace(TINY, dropout=dropout)).eval()
    net.set(one)
    own = net.extract(one)
    assert torch.equal(net(image), own(image))
    again = create_network(NetworkConfig.from_dict(json.loads(json.dumps(own.config.to_dict()))))
    again.load_state_dict(own.state_dict())
    assert torch.equal(again.eval()(image), own(image))


@torch.no_grad()
def test_a_narrow_branch_norms_what_is_left_as_before(net: ElasticNet) -> None:
    own = net.extract(choice(expansion1=0.5))
    part, whole = (one.encoder[1].second[2].layers for one in (own, net.full))
    assert [part[1].num_groups, whole[1].num_groups] == [2, 8]
    x = torch.rand(1, 16, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(part[:6](x), whole[:6](x)[:, :8])


def test_a_step_trains_what_ran_and_nothing_else(net: ElasticNet, image: torch.Tensor) -> None:
    net.train().set(MIXED)
    torch.stack([one.square().mean() for one in net(image)]).sum().backward()
    grad = {name: tensor.grad for name, tensor in net.full.named_parameters()}
    assert grad["encoder.1.first.2.layers.0.weight"] is None  # the third block
    assert grad["decoder.0.second.1.layers.0.weight"] is None
    inner = grad["decoder.0.first.0.layers.0.weight"]  # 8 inputs, half as many of 16 outputs
    assert inner is not None
    assert bool((inner[:4] != 0).any())
    assert not bool((inner[4:] != 0).any())


@pytest.mark.parametrize("gene", SPACE.genes)
def test_a_smaller_value_is_a_smaller_network(gene: str) -> None:
    def parameters(one: Choice) -> int:
        with torch.device("meta"):
            network = create_network(config_of(one, TINY))
        return sum(tensor.numel() for tensor in network.parameters())

    found = [parameters(choice(**{gene: value})) for value in SPACE.genes[gene]]
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"architecture": "resunet_aspp"}, "only a reversible U-Net"),
        ({"norm": "instance"}, "with group norms"),
        ({"attention": "se"}, "without attention"),
        ({"channels": (12, 32), "expansion": 1}, "level 0 has 6 hidden channels"),
        ({"widths": {"stem": [4, 8]}}, "is slimmed or cut already"),
    ],
)
def test_other_networks_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        elastic_network(dataclasses.replace(TINY, **wrong))

# SPDX-License-Identifier: Apache-2.0
"""NetMambas of two widths: how they are described, and what does not go with it."""

import dataclasses

import pytest
import torch
from torch import nn

from fieldfare.netsec.networks.architectures import architecture
from fieldfare.netsec.networks.experts import ExpertsConfig
from fieldfare.netsec.networks.netmamba.config import NetMambaConfig
from fieldfare.netsec.networks.netmamba.network import NetMambaClassifier
from fieldfare.netsec.networks.netmamba.stitching import NetMambaAnchor, check_family, stitched

PLAIN = NetMambaConfig(byte_length=96, packets=3, header_bytes=24, embed_dim=12, depth=3)
STITCHED = dataclasses.replace(PLAIN, front_depth=2, front_dim=8)
KIND = architecture("netmamba")


def test_a_stitched_network_has_a_layer_between_two_widths() -> None:
    assert STITCHED.widths == (8, 8, 12)
    assert NetMambaConfig(**STITCHED.to_dict()) == STITCHED
    assert "front_depth" not in PLAIN.to_dict()
    network = NetMambaClassifier(STITCHED, 4).eval()
    assert network.stitch.weight.shape == (12, 8)
    assert network(KIND.example(STITCHED)["bytes"]).shape == (3, 4)
    twin = NetMambaClassifier(PLAIN, 4)
    assert not hasattr(twin, "stitch")


@pytest.mark.parametrize(
    "values",
    [
        {"front_depth": 3, "front_dim": 8},
        {"front_depth": 1},
        {"front_dim": 8},
        {"front_depth": -1, "front_dim": 8},
    ],
)
def test_a_front_must_leave_blocks_behind_it(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"blocks of width|at least 1"):
        dataclasses.replace(PLAIN, **values)


def test_a_stitched_network_gets_experts_but_no_pretraining() -> None:
    with pytest.raises(ValueError, match="cannot be pre-trained"):
        KIND.pretraining(STITCHED)
    network = NetMambaClassifier(STITCHED, 4).eval()
    data = KIND.example(STITCHED)["bytes"]
    before = network(data)
    KIND.install_experts(network, STITCHED, ExpertsConfig(kind="random", count=2, k=1))
    torch.testing.assert_close(network.eval()(data), before)


def test_an_anchor_drops_what_the_network_drops() -> None:
    torch.manual_seed(0)
    network = NetMambaClassifier(dataclasses.replace(PLAIN, drop_path=0.5), 4).train()
    anchor = NetMambaAnchor(network)
    data = KIND.example(PLAIN)["bytes"]
    torch.manual_seed(1)
    wanted = network(data)
    torch.manual_seed(1)
    features = anchor.embed(data)
    for block in anchor.blocks:
        features = block(features)
    assert torch.equal(anchor.finish(features), wanted)


def test_networks_of_one_width_are_stitched_too() -> None:
    torch.manual_seed(0)
    network = NetMambaClassifier(PLAIN, 4).eval()
    layer = nn.Linear(12, 12)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(12))
        layer.bias.zero_()
    check_family(PLAIN, PLAIN)
    data = KIND.example(PLAIN)["bytes"]
    again = stitched(network, network, 0, 1, layer)
    torch.testing.assert_close(again(data), network(data))

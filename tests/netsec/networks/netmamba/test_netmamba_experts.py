# SPDX-License-Identifier: Apache-2.0
"""Experts beside NetMamba's mixers: the network begins as it was, and a flow is routed alone."""

import copy

import pytest
import torch

from fieldfare.netsec.networks.architectures import architecture
from fieldfare.netsec.networks.experts import ExpertsConfig, answer
from fieldfare.netsec.networks.netmamba import NetMambaConfig
from fieldfare.netsec.networks.netmamba.experts import by_protocol, used
from fieldfare.netsec.options import EXPERTS

KIND = architecture("netmamba")
CONFIG = NetMambaConfig(
    byte_length=128, packets=2, header_bytes=40, embed_dim=16, depth=2, decoder_embed_dim=8,
    decoder_depth=1, drop_path=0.0,
)  # fmt: skip


def dense():
    torch.manual_seed(0)
    return KIND.classifier(CONFIG, 3).eval()


def routed(kind, *, trained=False):
    """With experts; trained: as if their output maps had learnt something."""
    network = dense()
    k = 1 if kind in ("lookup", "stochastic", "switch") else 2
    experts = ExpertsConfig(kind=kind, count=4, k=k)
    torch.manual_seed(1)
    KIND.install_experts(network, CONFIG, experts)
    if trained:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith(".outer"):
                    parameter.normal_()
    return network.eval(), experts


def flows():
    """Bytes of packets of TCP and UDP over IPv4, and of UDP over IPv6."""
    rows = torch.randint(0, 256, (4, 128), generator=torch.Generator().manual_seed(0))
    rows[:, 0] = torch.tensor([0x45, 0x45, 0x60, 0x45])
    rows[:, 9], rows[2, 6] = torch.tensor([6, 17, 0, 47]), 17
    return rows.to(torch.uint8)


@pytest.mark.parametrize("kind", [kind for kind in EXPERTS if kind != "moe++"])
def test_it_begins_as_the_network_that_it_is_added_to(kind):
    with torch.inference_mode():
        assert (routed(kind)[0](flows()) - dense()(flows())).abs().max() < 1e-6


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_flow_alone_is_answered_as_in_a_batch_and_tokens_are_counted(kind):
    network, _ = routed(kind, trained=True)
    with torch.inference_mode():
        together = network(flows())
        ran, tokens = used(network)
        assert ran.shape[:2] == tokens.shape == (4, 2)
        assert set(tokens.flatten().tolist()) == {128 // 4 + 1}
        assert (together - dense()(flows())).abs().max() > 1e-3
        for row in range(4):
            assert (network(flows()[row : row + 1])[0] - together[row]).abs().max() < 1e-5


def test_protocols_have_experts_of_their_own():
    network, _ = routed("lookup", trained=True)
    with torch.inference_mode():
        network(flows())
    ran, tokens = used(network)
    for row, expert in enumerate([0, 1, 1, 3]):
        assert torch.equal(ran[row, :, expert], tokens[row])
    assert by_protocol(1).unique().tolist() == [0]


@pytest.mark.parametrize("kind", ["learned", "stochastic"])
def test_the_added_layers_learn(kind):
    network, experts = routed(kind)
    before = copy.deepcopy(network.state_dict())
    found, more = answer(network.train(), flows(), experts, 0, 2)
    loss = torch.stack([logits.square().sum() for logits in found]).sum()
    (loss if more is None else loss + more).backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    after = network.state_dict()
    name = "blocks.0.feed.layer.groups.0.outer"
    assert not torch.equal(before[name], after[name])


def test_fresh_ones_are_refused():
    with pytest.raises(ValueError, match="begin at zero"):
        KIND.install_experts(dense(), CONFIG, ExpertsConfig(kind="learned", start="fresh"))

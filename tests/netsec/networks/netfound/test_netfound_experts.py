# SPDX-License-Identifier: Apache-2.0
"""Experts in netFound: the dense network is kept, a flow is routed alone, choices are counted."""

import copy
import dataclasses

import pytest
import torch
from routed_models import CONFIG, KIND, dense, inputs, model_file, routed

from fieldfare.common.errors import InputError
from fieldfare.common.experts import chains
from fieldfare.common.experts.host import layers
from fieldfare.common.weights import load_model_file, save_model_file
from fieldfare.netsec.inference.classifier import load_classifier
from fieldfare.netsec.networks.experts import (
    ExpertsConfig,
    answer,
    balance_loss,
    scheduled,
    turn,
)
from fieldfare.netsec.networks.netfound.embedding import FlowInputs
from fieldfare.netsec.networks.netfound.experts import by_protocol, flow_keys, used
from fieldfare.netsec.options import EXPERTS


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("kind", ["learned", "random", "recurrent"])
def test_all_experts_of_a_cut_network_are_the_network(kind):
    network, _ = routed(kind, k=4)
    assert (network(inputs()) - dense()(inputs())).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["learned", "random", "recurrent", "lookup", "stochastic"])
def test_copies_are_the_network_whatever_is_chosen(kind):
    network, _ = routed(kind, k=1, start="copies")
    assert (network(inputs()) - dense()(inputs())).abs().max() < 1e-6


def test_a_published_network_is_kept_too_padding_included():
    config = dataclasses.replace(CONFIG, compat=True)
    network, _ = routed("learned", k=4, config=config)
    assert (network(inputs()) - dense(config)(inputs())).abs().max() < 1e-6


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_flow_alone_is_answered_as_in_a_batch(kind):
    network, _ = routed(kind, k=1 if kind in ("lookup", "switch", "stochastic") else 2)
    together = network(inputs())
    assert (together - dense()(inputs())).abs().max() > 1e-3  # experts that are left out count
    for row in range(6):
        alone = network(FlowInputs(*(value[row : row + 1] for value in inputs())))
        assert (alone[0] - together[row]).abs().max() < 1e-5


def test_padding_chooses_no_expert_and_tokens_are_counted():
    network, _ = routed("learned", k=2)
    batch = inputs()
    network(batch)
    ran, tokens = used(network)
    assert ran.shape == (6, 4, 4)  # two layers over tokens, two over bursts
    assert tokens[:, 0].tolist() == batch.mask.sum(dim=(1, 2)).tolist()
    assert tokens[:, 2].tolist() == batch.mask[:, :, 0].sum(dim=1).tolist()
    assert torch.equal(ran.sum(dim=2), 2 * tokens)
    hosted = layers(network)
    counted = sum(
        hosted[name].macs(choice)
        for chain in chains(network)
        for name, choice in chain.choices.items()
    )
    assert counted == int(ran.sum()) * 3 * 16 * (32 // 4)


def test_protocols_have_experts_of_their_own():
    network, _ = routed("lookup", k=1)
    network(inputs())
    ran, tokens = used(network)
    for row, expert in enumerate([0, 1, 2, 0, 1, 2]):  # TCP, UDP, ICMP
        assert torch.equal(ran[row, :, expert], tokens[row])
    assert by_protocol(2).tolist() == [1] * 6 + [0] + [1] * 11


def test_keys_are_of_what_a_flow_says_whatever_the_padding():
    wide = inputs(length=20).ids
    padded = torch.nn.functional.pad(wide, (0, 5, 0, 1))
    assert torch.equal(flow_keys(wide), flow_keys(padded))
    assert len(set(flow_keys(wide).tolist())) == len(wide)


def test_a_copy_is_independent_and_answers_alike():
    network, _ = routed("recurrent")
    expected = network(inputs())
    copied = copy.deepcopy(network)
    assert copied.base_transformer.routing.bursts is chains(copied)[0]
    assert chains(copied)[0] is not chains(network)[0]
    assert torch.equal(copied(inputs()), expected)


def test_the_dial_turns_and_fixed_routers_have_none():
    network, experts = routed("random", k=1)
    few = network(inputs())
    assert turn(network, experts, 4).k == 4
    assert (network(inputs()) - dense()(inputs())).abs().max() < 1e-6
    assert (network(inputs()) - few).abs().max() > 1e-3
    with pytest.raises(ValueError, match="no number of experts"):
        turn(*routed("lookup", k=1), 2)


def test_experts_of_a_random_router_grow_from_k_to_all():
    experts = ExpertsConfig(kind="random", count=8, k=4)
    assert [scheduled(experts, step, 5) for step in range(5)] == [4, 5, 6, 7, 8]
    assert scheduled(dataclasses.replace(experts, kind="learned"), 4, 5) == 4


@pytest.mark.parametrize("kind", EXPERTS)
def test_every_kind_learns(kind):
    with torch.inference_mode(False), torch.enable_grad():
        network, experts = routed(kind, k=1 if kind in ("lookup", "switch", "stochastic") else 2)
        network.train()
        before = copy.deepcopy(network.state_dict())
        found, more = answer(network, inputs(), experts, 0, 10)
        assert len(found) == (2 if kind == "stochastic" else 1)
        loss = torch.stack([logits.square().mean() for logits in found]).sum()
        (loss if more is None else loss + more).backward()
        torch.optim.SGD(network.parameters(), 1.0).step()
        after = network.state_dict()
        routers = [name for name in before if ".router." in name]
        moved = [name for name in routers if not torch.equal(before[name], after[name])]
        if kind in ("random", "lookup", "stochastic"):
            assert not moved
        else:
            assert moved
        if kind in ("learned", "recurrent", "switch", "moe++"):
            assert float(balance_loss(network, experts).detach()) > 0
        else:
            assert balance_loss(network, experts) is None


def test_what_no_card_may_say():
    for wrong in (
        {"kind": "duo"},
        {"kind": "learned", "k": 9},
        {"kind": "learned", "start": "anew"},
        {"kind": "learned", "held": {"a": [4, 5]}},
    ):
        with pytest.raises(ValueError, match=r"experts|start"):
            ExpertsConfig(**wrong)
    with pytest.raises(ValueError, match="cannot be cut"):
        KIND.install_experts(dense(), CONFIG, ExpertsConfig(kind="learned", count=5, k=1))


def test_a_card_cannot_describe_more_copies_than_its_file_could_hold(tmp_path):
    path = model_file(tmp_path / "m.safetensors", "learned", k=1, start="copies")
    card, tensors = load_model_file(path)
    experts = card.config["experts"] | {"count": 10**6}
    save_model_file(
        path, tensors, dataclasses.replace(card, config=card.config | {"experts": experts})
    )
    with pytest.raises(InputError, match="far larger network"):
        load_classifier(str(path))

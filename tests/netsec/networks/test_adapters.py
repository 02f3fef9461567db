# SPDX-License-Identifier: Apache-2.0
"""Adapters of a frozen network: nothing at first, trained alone, mixed as Glider does."""

import numpy as np
import pytest
import torch
from judged_flows import CONFIGS
from routed_models import CONFIG, KIND, dense, inputs

from fieldfare.common.errors import InputError
from fieldfare.netsec.networks.adapters import (
    ADAPTED,
    adapted_layers,
    adapter_of,
    digest,
    mixed,
    tell,
    tune,
)
from fieldfare.netsec.networks.architectures import architecture


def a_trained_one(seed, rank=2):
    """An adapter with numbers in it."""
    network = dense()
    tune(network, rank)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.3
        for name, tensor in adapter_of(network).items()
    }


@pytest.mark.parametrize("kind_name", CONFIGS)
def test_an_adapter_changes_nothing_at_first_and_trains_alone(kind_name):
    kind, config = architecture(kind_name), CONFIGS[kind_name]
    torch.manual_seed(0)
    network = kind.classifier(config, 3).eval()
    batch = kind.join(list(kind.example(config).values()))
    before = network(batch).detach()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    names = adapted_layers(network)
    assert {name.rpartition(".")[2] for name in names} <= set(ADAPTED)
    tune(network, 3)
    assert torch.equal(network(batch), before)
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * len(names)
    assert all(".bank." in name for name in trained)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        network(batch).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(network(batch), before)
    left = {name.replace(".base.", "."): t for name, t in network.state_dict().items()}
    assert all(torch.equal(left[name], tensor) for name, tensor in weights.items())


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(InputError, match="there is none"):
        tune(torch.nn.Sequential(torch.nn.Linear(3, 3)), 2)


def test_gates_train_behind_a_frozen_adapter():
    network, known = dense(), a_trained_one(0)
    tune(network, 2, known)
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert len(trained) == len(adapted_layers(dense()))
    assert all(name.endswith(".gate") for name in trained)
    network(inputs()).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in network.named_parameters() if ".gate" in n)
    found = adapter_of(network)
    assert all(torch.equal(found[n], known[n]) for n in known if not n.endswith(".gate"))


def test_one_adapter_mixed_is_that_adapter():
    network, one = dense(), a_trained_one(1)
    plain = dense()
    with torch.no_grad():
        for name in adapted_layers(plain):
            plain.get_submodule(name).weight += one[f"{name}.up"] @ one[f"{name}.down"]
    alone = mixed(network, [one], torch.ones(1, 4), 3.0, -1.0)
    tell(alone, torch.ones(4))
    with torch.inference_mode():
        assert (alone(inputs()) - plain(inputs())).abs().max() < 1e-4
        assert (plain(inputs()) - network(inputs())).abs().max() > 1e-3


def test_the_site_decides_between_adapters_of_any_rank():
    network, one, other = dense(), a_trained_one(1), a_trained_one(2, rank=3)
    sites = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    both = mixed(network, [one, other], sites, 100.0, -1.0)
    with torch.inference_mode():
        answers = []
        for site, own in ((sites[0], one), (sites[1], other)):
            tell(both, site)
            answers.append(both(inputs()))
            alone = mixed(network, [own], sites[:1], 3.0, -1.0)
            tell(alone, sites[0])
            assert (answers[-1] - alone(inputs())).abs().max() < 1e-4
        assert (answers[0] - answers[1]).abs().max() > 5e-3
        # Sites that are too far away get no token, whatever the gates say.
        near = mixed(network, [one, other], sites, 0.01, 0.5)
        tell(near, sites[0])
        assert (near(inputs()) - answers[0]).abs().max() < 1e-4
        tell(near, -sites[0])
        with pytest.raises(ValueError, match="like no adapter's"):
            near(inputs())
    own = network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in dense().state_dict().items())


def test_an_adapter_of_another_network_is_refused():
    one = a_trained_one(1)
    name = adapted_layers(dense())[0]
    for wrong in (
        {},
        one | {f"{name}.up": torch.zeros(3, 2)},
        one | {f"{name}.gate": one[f"{name}.up"]},
    ):
        with pytest.raises(ValueError, match=r"it has no|its up of"):
            mixed(dense(), [wrong], torch.ones(1, 2), 3.0, -1.0)
    assert digest(dense().state_dict()) == digest(dense().state_dict())
    other = KIND.classifier(CONFIG, 3).state_dict()
    assert digest(other) != digest(dense().state_dict())
    assert np.unique([len(digest(other))]).tolist() == [64]

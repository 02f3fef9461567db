# SPDX-License-Identifier: Apache-2.0
"""The network against the published computation, and what is corrected by default."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fieldfare.netsec.networks.netfound import (
    CONFIGS,
    NetFoundClassifier,
    NetFoundConfig,
    NetFoundPretraining,
)
from fieldfare.netsec.networks.netfound.attention import rotary_table, rotate
from fieldfare.netsec.networks.netfound.config import CLS, MASK, PAD
from fieldfare.netsec.networks.netfound.embedding import byte_rows

TINY = NetFoundConfig(16, 2, 4, 24)


@pytest.fixture
def network(finetune, compat_config):
    network = NetFoundClassifier(compat_config, 5).eval()
    network.load_state_dict(finetune[1])
    return network


def random_network(config, classes=5, seed=0):
    torch.manual_seed(seed)
    network = NetFoundClassifier(config, classes).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return network


def test_embeddings_hidden_states_logits_and_loss_equal_the_published_ones(network, finetune):
    inputs, _, expected = finetune
    with torch.no_grad():
        embeddings = network.base_transformer.embeddings(inputs).flatten(1, 2)
        hidden = network.base_transformer(inputs).flatten(1, 2)
        logits = network(inputs)
    assert (embeddings - expected["out.embeddings"]).abs().max() < 5e-6
    assert (hidden - expected["out.last_hidden_state"]).abs().max() < 5e-6
    assert (logits - expected["out.logits"]).abs().max() < 1e-6
    assert (F.cross_entropy(logits, expected["in.labels"]) - expected["out.loss"]).abs() < 1e-6


def test_gradients_equal_the_published_ones(network, finetune):
    inputs, _, expected = finetune
    F.cross_entropy(network(inputs), expected["in.labels"]).backward()
    names = [name[5:] for name in expected if name.startswith("grad.")]
    assert len(names) == 4
    for name in names:
        wanted = expected[f"grad.{name}"]
        error = (network.get_parameter(name).grad - wanted).abs().max() / wanted.abs().max()
        assert error < 2e-5, name


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("small", 53_576_962), ("base", 175_202_946), ("large", 663_164_290)],
)
def test_published_sizes_have_the_published_parameters(size, parameters, published):
    official = json.loads((published / "official_keys_shapes.json").read_text())
    with torch.device("meta"):
        network = NetFoundClassifier(CONFIGS[size], 2)
    counts = official[f"{size}:finetune"]
    base = network.base_transformer
    assert sum(p.numel() for p in network.parameters()) == parameters == counts["n_params"]
    assert sum(p.numel() for p in base.parameters()) == counts["base_params"]
    assert sum(p.numel() for p in base.encoder.parameters()) == counts["encoder_params"]
    assert len(network.state_dict()) == official["keys_count"][f"{size}:finetune"]


def test_tiny_has_968_898_parameters_and_1_019_335_in_pretraining():
    with torch.device("meta"):
        networks = NetFoundClassifier(CONFIGS["tiny"], 2), NetFoundPretraining(CONFIGS["tiny"])
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [968_898, 1_019_335]


def test_small_has_the_published_names_and_shapes(published):
    official = json.loads((published / "official_keys_shapes.json").read_text())
    with torch.device("meta"):
        network = NetFoundClassifier(CONFIGS["small"], 2)
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == official["keys_small"]["finetune"]


def test_tiny_fits_into_10_megabytes():
    with torch.device("meta"):
        network = NetFoundClassifier(CONFIGS["tiny"], 20)
    assert sum(tensor.nbytes for tensor in network.state_dict().values()) < 10e6


@pytest.mark.parametrize("vocabulary", ["words", "bytes"])
def test_logits_do_not_depend_on_the_rest_of_the_batch(vocabulary, flow_tokens):
    network = random_network(replace(TINY, vocabulary=vocabulary))
    with torch.no_grad():
        together = network(flow_tokens.batch(slice(None)))
        alone = torch.cat([network(flow_tokens.batch([row])) for row in range(len(flow_tokens))])
    assert (together - alone).abs().max() < 1e-5


def test_published_logits_depend_on_the_rest_of_the_batch(flow_tokens):
    network = random_network(replace(TINY, compat=True))
    with torch.no_grad():
        together = network(flow_tokens.batch([0, 4]))[0]
        alone = network(flow_tokens.batch([0]))[0]
    assert (together - alone).abs().max() > 1e-3


@pytest.mark.parametrize("compat", [True, False])
def test_only_by_default_the_position_of_a_burst_counts(compat, flow_tokens):
    network = random_network(replace(TINY, compat=compat))
    inputs = flow_tokens.batch([4])
    with torch.no_grad():
        before = network(inputs)
        network.base_transformer.encoder.layer[0].position_embeddings.weight.normal_()
        moved = (network(inputs) - before).abs().max()
    assert moved == 0 if compat else moved > 1e-3


def test_left_out_padding_gives_what_computing_it_gives(flow_tokens, monkeypatch):
    network = random_network(TINY)
    inputs = flow_tokens.batch(slice(None))
    with torch.no_grad():
        packed = network(inputs)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        whole = network(inputs)
    assert (packed - whole).abs().max() < 1e-5


@pytest.mark.parametrize("vocabulary", ["words", "bytes"])
def test_every_parameter_but_the_unused_ones_learns(vocabulary, flow_tokens):
    network = random_network(replace(TINY, vocabulary=vocabulary)).train()
    inputs = flow_tokens.batch(slice(None))
    F.cross_entropy(network(inputs), torch.arange(len(flow_tokens)) % 5).backward()
    still = {name for name, p in network.named_parameters() if p.grad is None}
    rotary = {f"base_transformer.encoder.{part}_positions.weight" for part in ("burst", "flow")}
    unused = {"base_transformer.embeddings.token_type_embeddings.weight"}
    assert still == rotary | (unused if vocabulary == "words" else set())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(("metadata", "drowned"), [("linear", True), ("log", False)])
def test_a_long_pause_drowns_the_tokens_only_of_linear_metadata(metadata, drowned, flow_tokens):
    torch.manual_seed(0)
    embeddings = NetFoundClassifier(replace(TINY, metadata=metadata), 5).base_transformer.embeddings
    inputs = flow_tokens.batch([4])

    def told_apart(milliseconds):
        paused = inputs._replace(interval=torch.full_like(inputs.interval, milliseconds))
        changed = paused._replace(ids=torch.where(inputs.ids == CLS, CLS, inputs.ids % 1000 + 500))
        with torch.no_grad():
            return (embeddings.eval()(paused) - embeddings(changed))[inputs.mask].norm()

    assert bool(told_apart(20_000.0) < 0.1 * told_apart(0.0)) is drowned


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    table = rotary_table(20, 8)
    turned = rotate(query.expand(20, 8), table), rotate(key.expand(20, 8), table)
    assert torch.allclose(turned[0].norm(dim=1), query.norm().expand(20))
    products = turned[0] @ turned[1].T
    for distance in range(-5, 6):
        line = products.diagonal(distance)
        assert torch.allclose(line, line[0].expand_as(line), atol=1e-5)


def test_byte_rows_of_all_tokens_are_distinct():
    ids = torch.cat([torch.arange(CLS), torch.tensor([CLS, MASK])])
    high, low = byte_rows(ids)
    assert len(set(zip(high.tolist(), low.tolist(), strict=True))) == len(ids)
    assert (high.max(), low.max()) == (258, 258)
    assert byte_rows(torch.tensor([PAD, 1, 0x1234 + 1, 65536]))[0].tolist() == [256, 0, 0x12, 255]
    assert byte_rows(torch.tensor([PAD, 1, 0x1234 + 1, 65536]))[1].tolist() == [256, 0, 0x34, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 20}, "no multiple"),
        ({"layers": 0}, "layers is 0"),
        ({"vocabulary": "bits"}, "choose words or bytes"),
        ({"metadata": "sqrt"}, "choose linear or log"),
        ({"payload_tokens": -1}, "payload_tokens"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **values)


def test_a_configuration_survives_the_model_card():
    for config in CONFIGS.values():
        assert NetFoundConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert CONFIGS["small"].burst_length == 73
    assert replace(CONFIGS["small"], payload_tokens=6).burst_length == 109

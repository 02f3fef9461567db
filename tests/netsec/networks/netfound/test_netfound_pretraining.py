# SPDX-License-Identifier: Apache-2.0
"""Pre-training: losses as published, and a corruption that does what it says."""

import json
from dataclasses import replace

import pytest
import torch

from fieldfare.netsec.networks.netfound import (
    CONFIGS,
    NetFoundConfig,
    NetFoundPretraining,
    PretrainingSettings,
    corrupt,
    tokenise,
)
from fieldfare.netsec.networks.netfound.config import CLS, MASK
from fieldfare.netsec.networks.netfound.pretraining import IGNORED, PretrainingBatch

TINY = NetFoundConfig(16, 2, 4, 24)


@pytest.fixture
def published_batch(pretrain):
    inputs, _, tensors = pretrain
    return PretrainingBatch(
        inputs,
        tensors["in.labels"].view(5, 12, 73),
        tensors["in.swappedLabels"],
        tensors["in.burstMetasToBeMasked"],
    )


@pytest.fixture
def network(pretrain, compat_config):
    network = NetFoundPretraining(compat_config).eval()
    fit = network.load_state_dict(pretrain[1], strict=False)
    assert fit.missing_keys == ["lm_head.decoder.weight"]  # that of the word embedding
    return network


def test_the_four_losses_equal_the_published_ones(network, published_batch, pretrain):
    expected = pretrain[2]
    with torch.no_grad():
        losses = network(published_batch)
    wanted = {
        "token": expected["loss.mlm_loss"],
        "swap": expected["loss.swap_bursts_loss"],
        "metadata": expected["loss.metadata_loss"],
        "direction": expected["loss.direction_loss"],
        "total": expected["out.loss"],
    }
    for name, value in wanted.items():
        assert (getattr(losses, name) - value).abs() < 5e-6, name


def test_logits_equal_the_published_ones(network, published_batch, pretrain):
    inputs, _, expected = pretrain
    with torch.no_grad():
        hidden = network.encode(published_batch)
        swap = network.swap_logits(hidden[:, :, 0], inputs.mask[:, :, 0])
        words = network.lm_head(hidden)[..., :16].flatten(1, 2)
    assert (swap - expected["out.swapped_logits"]).abs().max() < 1e-6
    assert (words - expected["out.mlm_logits_first16"]).abs().max() < 2e-6


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("small", 53_383_495), ("base", 174_683_335), ("large", 662_187_463)],
)
def test_published_sizes_have_the_published_pretraining_parameters(size, parameters, published):
    official = json.loads((published / "official_keys_shapes.json").read_text())
    with torch.device("meta"):
        network = NetFoundPretraining(CONFIGS[size])
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert official[f"{size}:pretrain"]["n_params"] == parameters
    assert len(network.state_dict()) == official["keys_count"][f"{size}:pretrain"]
    if size == "small":
        shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        assert shapes == official["keys_small"]["pretrain"]


@pytest.fixture
def many(make_packets):
    return tokenise(make_packets([1, 2, 3, 60, 30, 90] * 60, seed=5), TINY).batch(slice(None))


def test_corruption_is_repeated_by_its_seed_and_changed_by_another(many):
    first, again, other = corrupt(many, 7), corrupt(many, 7), corrupt(many, 8)
    assert all(torch.equal(a, b) for a, b in zip(first.inputs, again.inputs, strict=True))
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.inputs.ids, other.inputs.ids)


def test_rates_of_corruption(many):
    batch = corrupt(many, 0)
    exchanged = (batch.inputs.mask != many.mask).any(dim=2)  # those that changed length
    real = many.mask[:, :, 0]
    words = many.mask & (many.ids != CLS)
    chosen = batch.labels != IGNORED
    assert 0.25 < chosen.sum() / words.sum() < 0.31  # none in exchanged bursts
    assert torch.equal(batch.labels[chosen], many.ids[chosen])
    became = batch.inputs.ids[chosen]
    assert 0.78 < (became == MASK).float().mean() < 0.82
    assert 0.08 < (became == batch.labels[chosen]).float().mean() < 0.12
    assert 0.4 < batch.swapped.float().mean() < 0.6
    assert not (exchanged.any(dim=1) & (batch.swapped == 0)).any()
    long = real.sum(dim=1) >= 4
    assert not batch.hidden_bursts[~long].any()
    assert not (batch.hidden_bursts & ~real).any()
    assert 0.25 < batch.hidden_bursts[long].sum() / real[long].sum() < 0.35


def test_exchanged_bursts_are_whole_and_from_another_flow(many):
    settings = PretrainingSettings(mask_rate=0, swap_rate=1)
    batch = corrupt(many, 1, settings)
    assert (batch.swapped == 1).all()
    assert (batch.labels == IGNORED).all()
    bursts = {tuple(b.tolist()): None for b in many.ids[many.mask[:, :, 0]]}
    assert all(tuple(b.tolist()) in bursts for b in batch.inputs.ids[many.mask[:, :, 0]])
    changed = (batch.inputs.ids != many.ids).any(dim=2)
    assert changed.sum(dim=1).max() == 1
    assert torch.equal(batch.inputs.mask, batch.inputs.ids != 0)
    assert torch.equal(batch.inputs.bytes, many.bytes)


def test_a_lone_flow_is_not_exchanged(many):
    lone = type(many)(*(value[3:4] for value in many))
    batch = corrupt(lone, 0, PretrainingSettings(swap_rate=1))
    assert batch.swapped.tolist() == [0]


def test_the_network_does_not_see_hidden_metadata(many):
    torch.manual_seed(0)
    network = NetFoundPretraining(TINY).eval()
    batch = corrupt(many, 3)
    other = batch.inputs._replace(
        direction=torch.where(batch.hidden_bursts, -many.direction, many.direction),
        bytes=torch.where(batch.hidden_bursts, 9e4, many.bytes),
    )
    with torch.no_grad():
        assert torch.equal(network.encode(batch), network.encode(batch._replace(inputs=other)))


@pytest.mark.parametrize(("vocabulary", "metadata"), [("words", "linear"), ("bytes", "log")])
def test_the_losses_fall_when_it_learns_one_batch(vocabulary, metadata, many):
    torch.manual_seed(0)
    config = replace(TINY, vocabulary=vocabulary, metadata=metadata, dropout=0.0)
    network = NetFoundPretraining(config)
    batch = corrupt(type(many)(*(value[:12] for value in many)), 0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    history = []
    for _ in range(12):
        losses = network(batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        history.append(losses.total.item())
    assert history[-1] < 0.9 * history[0]


def test_metadata_are_told_in_published_units_or_as_logarithms(many):
    one = many._replace(bytes=many.bytes * 0 + 1500, packets=many.packets * 0 + 3)
    one = one._replace(interval=one.interval * 0 + 250)
    linear = NetFoundPretraining(TINY).metadata_targets(one)[0, 0]
    assert linear.tolist() == pytest.approx([0.25, 1.5, 3])
    logarithms = NetFoundPretraining(replace(TINY, metadata="log")).metadata_targets(one)[0, 0]
    assert logarithms.expm1().tolist() == pytest.approx([1500, 3, 250])


def test_nothing_to_predict_costs_nothing(many):
    network = NetFoundPretraining(TINY).eval()
    short = type(many)(*(value[:1] for value in many))
    losses = network(corrupt(short, 0, PretrainingSettings(mask_rate=0)))
    assert losses.token == losses.metadata == losses.direction == 0
    assert losses.total == losses.swap

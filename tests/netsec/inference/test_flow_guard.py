# SPDX-License-Identifier: Apache-2.0
"""The guard asks about the same flows as other recordings might hold them."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner
from judged_flows import make_flows, member

from fieldfare.common.errors import InputError
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.cli import main
from fieldfare.netsec.data.flow_rows import is_bare, take
from fieldfare.netsec.evaluation.fitting import fit_evidence, fit_guard
from fieldfare.netsec.inference.classifier import FlowClassifier
from fieldfare.netsec.inference.evidence import PART
from fieldfare.netsec.inference.guard import (
    CHANGES,
    Change,
    HeldAnswers,
    agreement,
    encoder,
    load_guard,
    neighbour,
    numbers,
)
from fieldfare.netsec.networks.architectures import TASK


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return tmp_path_factory.mktemp("captures") / "c.pcap"


@pytest.fixture(scope="module")
def data(capture):
    return make_flows(capture)


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A model file with evidence and guard."""
    classifier = member("netmamba")
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    card = ModelCard(
        name="m", task=TASK, summary="", config=dataclasses.asdict(classifier.config), data="",
        split="", training="", seed=0, limits="", date="2026-01-01",
    )  # fmt: skip
    parts = {
        PART: fit_evidence([classifier], data, data).to_tensors(),
        GUARD: fit_guard(classifier, data).to_tensors(),
    }
    save_model_file(path, classifier.network.state_dict(), card, parts)
    save_model_file(path.with_name("bare.safetensors"), classifier.network.state_dict(), card)
    return path


def test_neighbours_are_the_same_flows_every_time(data):
    before = data.flows.first_packets.data.copy()
    for change in CHANGES:
        one, again = neighbour(data.flows, change), neighbour(data.flows, change)
        np.testing.assert_array_equal(one.first_packets.data, again.first_packets.data)
        np.testing.assert_array_equal(one.start, data.flows.start)
        assert (np.bincount(one.first_packets.flow, minlength=len(one)) > 0).all()
    np.testing.assert_array_equal(data.flows.first_packets.data, before)


def test_a_change_is_what_it_says(data):
    flows = take(data.flows, data.label == 2)
    turned = neighbour(flows, Change(version=True))
    assert set(turned.family.tolist()) == {6}
    assert set(flows.family.tolist()) == {4}
    snapped = neighbour(flows, Change(snap=50)).first_packets
    assert (snapped.header + snapped.payload).max() == 50
    quick = neighbour(flows, Change(pace=0.5)).first_packets
    whole = flows.first_packets
    first = whole.time[np.searchsorted(whole.flow, whole.flow)]
    np.testing.assert_allclose(quick.time - first, (whole.time - first) / 2, atol=1)


def test_numbers_name_flows_and_their_neighbours(data):
    classifier = member("netmamba")
    count = len(data)
    encode = encoder(classifier, data.flows)
    rows = torch.tensor([5, 2, 80])
    for k, seen in enumerate([data.flows, *(neighbour(data.flows, c) for c in CHANGES[:3])]):
        features, logits = encode(rows + k * count)
        wanted, embeddings = classifier.look(take(seen, rows.numpy()))
        np.testing.assert_array_equal(logits.numpy(), wanted)
        np.testing.assert_array_equal(features.numpy(), embeddings)
    assert torch.cat(list(numbers(data.flows))).tolist() == list(range(count))


def test_clean_flows_are_flagged_as_rarely_as_said(data):
    classifier = member("netmamba")
    guard = fit_guard(classifier, data)
    named = take(data.flows, ~is_bare(data.flows))
    scores = agreement(guard, classifier, named)
    assert scores.shape == (len(named),)
    assert (np.abs(scores) <= 1 + 1e-6).all()
    assert guard.flags(scores).mean() <= 0.06
    assert agreement(guard, classifier, take(data.flows, np.zeros(0))).shape == (0,)


def test_a_model_without_a_guard_or_with_shown_fields_is_refused(model):
    classifier = member("netmamba")
    with pytest.raises(InputError, match="keeps no guard"):
        load_guard(str(model.with_name("bare.safetensors")), classifier)
    config = dataclasses.replace(classifier.config, optional=("ports",))
    shown = FlowClassifier(classifier.network, config, show=["ports"])
    with pytest.raises(InputError, match="leave --show out"):
        load_guard(str(model), shown)


def infer(capture, target, model, *more):
    return CliRunner().invoke(
        main, ["infer", str(capture), "-o", str(target), "--model", str(model), *more]
    )


def test_the_command_adds_columns_and_a_verdict(capture, data, model, tmp_path):
    answer = infer(capture, tmp_path / "f.parquet", model, "--guard", "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)["guard"]
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    flagged = table["flagged"].to_pylist()
    assert found["parts"] == sum(value is not None for value in flagged) > 0
    assert found["flagged"] == sum(value is True for value in flagged)
    judged = [value is not None for value in table["agreement"].to_pylist()]
    assert judged == [value is not None for value in flagged]
    plain = infer(capture, tmp_path / "p.parquet", model, "--json")
    assert json.loads(plain.stdout)["guard"] is None
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet").equals(
        table.drop_columns(["agreement", "flagged"])
    )
    refused = infer(capture, tmp_path / "n", model.with_name("bare.safetensors"), "--guard")
    assert refused.exit_code == 2
    assert not (tmp_path / "n").exists()


def test_a_recording_whose_answers_do_not_hold_is_warned_of(model, monkeypatch, capture, tmp_path):
    everything = "fieldfare.common.trust.guard.Guard.flags"
    monkeypatch.setattr(everything, lambda self, scores: np.ones(len(scores), bool))
    answer = infer(capture, tmp_path / "f.parquet", model, "--guard")
    assert answer.exit_code == 0
    assert "get another answer when slightly changed" in answer.stderr
    strict = infer(capture, tmp_path / "s.parquet", model, "--guard", "--strict")
    assert strict.exit_code == 2
    assert not (tmp_path / "s.parquet").exists()


def test_nothing_is_gathered_without_a_guard():
    assert HeldAnswers(None).verdict() is None

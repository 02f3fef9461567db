# SPDX-License-Identifier: Apache-2.0
"""Ports, protocols, familiarity, and a second network that is asked where the first is unsure."""

import dataclasses

import numpy as np
import pytest
import torch
from judged_flows import make_flows, member, together

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.data.flow_rows import take
from fieldfare.netsec.evaluation.fitting import UNKNOWN, fit_evidence
from fieldfare.netsec.inference.classifier import (
    SECOND,
    FlowClassifier,
    load_classifier,
)
from fieldfare.netsec.inference.evidence import PART, Evidence
from fieldfare.netsec.inference.ports import count_ports
from fieldfare.netsec.networks.architectures import TASK


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_flows(tmp_path_factory.mktemp("captures") / "c.pcap")


def test_a_port_speaks_for_its_class_within_bounds(data):
    table = count_ports(data.flows, data.label, data.capture, 3)
    said = table(data.flows)
    free = data.label > 0
    assert (said[free].argmax(axis=1) == data.label[free]).all()
    assert (np.abs(said[free]) < np.log(1 / 0.05) + 1e-6).all()
    moved = dataclasses.replace(
        data.flows, src_port=np.full(len(data), 7777, np.uint16), dst_port=np.full(len(data), 7778)
    )
    assert not table(moved)[free].any()


def test_icmp_of_both_versions_is_told_by_its_protocol_alone(data):
    classifier = together(data, 0.0)
    found = classifier.classify(data.flows)
    ours = data.label == 0
    assert (data.flows.protocol[ours] == 58).any()
    assert (found.probabilities[ours, 0] > 0.999).all()
    assert (found.familiarity[ours] == 1).all()
    assert (found.probabilities[~ours, 0] < 0.01).all()
    mixed = dataclasses.replace(data, label=np.where(data.label == 2, 0, data.label))
    assert count_ports(data.flows, mixed.label, data.capture, 3).icmp == -1


def test_only_unsure_flows_are_shown_to_the_second_network(data, monkeypatch):
    shown = []
    none, some, every = (together(data, window) for window in (0.0, 0.4, 2.0))
    inner = some.second.classify
    monkeypatch.setattr(some.second, "classify", lambda f: shown.append(len(f)) or inner(f))
    by = [classifier.classify(data.flows) for classifier in (none, some, every)]
    passed = by[0].familiarity < 0.4
    assert 0 < passed.sum() < len(data)
    assert shown == [passed.sum()]
    for field in ("probabilities", "networks", "familiarity"):
        alone, cascade, ensemble = (getattr(found, field) for found in by)
        np.testing.assert_array_equal(cascade[~passed], alone[~passed])
        # Embeddings of untrained networks are nearly equal: ranks of distances hang on last digits.
        step = 1.01 / len(some.evidence.stages[1].scores) if field == "familiarity" else 0
        np.testing.assert_allclose(cascade[passed], ensemble[passed], rtol=1e-5, atol=step)
    assert tuple(every.kept.values()) == (24, 80, 24)
    nothing = every.classify(take(data.flows, np.array([], int)))
    assert nothing.probabilities.shape == (0, 3)
    assert nothing.familiarity.shape == (0,)


def test_familiarity_is_the_share_of_validation_flows_that_look_as_strange(data):
    evidence = fit_evidence([member("netmamba")], data, data)
    classifier = member("netmamba")
    classifier.evidence = evidence
    familiarity = classifier.classify(data.flows).familiarity[data.label > 0]
    for limit in (0.2, 0.5, 0.8):
        assert (familiarity < limit).mean() == pytest.approx(limit, abs=0.2)
    odd = dataclasses.replace(
        take(data.flows, np.flatnonzero(data.label == 2)[:1]),
        src_port=np.array([9], np.uint16), dst_port=np.array([9], np.uint16),
    )  # fmt: skip
    assert classifier.classify(odd).familiarity[0] < familiarity.max()


def test_a_file_gives_both_networks_and_the_evidence_back(data, tmp_path):
    pair = together(data, 0.4)
    config = dataclasses.replace(pair.config, second=dataclasses.asdict(pair.second.config))
    card = ModelCard("pair", TASK, "Two.", dataclasses.asdict(config))
    path = tmp_path / "pair.safetensors"
    parts = {PART: pair.evidence.to_tensors(), SECOND: pair.second.network.state_dict()}
    save_model_file(path, pair.network.state_dict(), card, parts)
    loaded, _ = load_classifier(str(path))
    assert loaded.parameters() == pair.parameters()
    one, two = loaded.classify(data.flows), pair.classify(data.flows)
    np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-6)
    np.testing.assert_allclose(one.familiarity, two.familiarity)
    assert loaded.unknown_below == UNKNOWN
    parts[SECOND] = {"classifier.weight": torch.zeros(1)}
    save_model_file(path, pair.network.state_dict(), card, parts)
    with pytest.raises(InputError, match="does not fit the network"):
        load_classifier(str(path))
    parts[PART] = {"about": torch.zeros(3, dtype=torch.uint8)}
    save_model_file(path, pair.network.state_dict(), card, parts)
    with pytest.raises(InputError, match="not a model's evidence"):
        load_classifier(str(path))


def test_shown_fields_leave_the_networks_alone(data):
    first = member("netmamba")
    config = dataclasses.replace(first.config, optional=("ports",))
    evidence = fit_evidence([first], data, data)
    shown = FlowClassifier(first.network, config, show=["ports"], evidence=evidence)
    assert shown.evidence is None
    assert np.isnan(shown.classify(data.flows).familiarity).all()


def test_too_few_flows_and_other_classes_are_refused(data):
    few = data.select(np.arange(6))
    with pytest.raises(ValueError, match="needs 20 flows"):
        fit_evidence([member("netmamba")], data, few)
    other = dataclasses.replace(data, classes=("A", "B", "C"))
    with pytest.raises(ValueError, match="just the classes"):
        fit_evidence([member("netmamba")], other, data)


def test_evidence_survives_its_tensors(data):
    evidence = fit_evidence([member("netmamba")], data, data)
    again = Evidence.from_tensors(evidence.to_tensors())
    np.testing.assert_array_equal(again.ports.keys, evidence.ports.keys)
    np.testing.assert_allclose(again.stages[0].scores, evidence.stages[0].scores)

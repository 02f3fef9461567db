# SPDX-License-Identifier: Apache-2.0
"""Ports, protocols, familiarity, and a second network that is asked where the first is unsure."""

import dataclasses

import numpy as np
import pytest
import torch
from make_captures import ethernet, ipv4, ipv6, pcap, tcp, udp

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.dataset import LabelledFlows
from fieldfare.netsec.data.flow_rows import concatenate, take
from fieldfare.netsec.data.labels import Matched
from fieldfare.netsec.evaluation.fitting import fit_evidence
from fieldfare.netsec.inference.classifier import (
    SECOND,
    ClassifierConfig,
    FlowClassifier,
    load_classifier,
)
from fieldfare.netsec.inference.evidence import PART, Evidence
from fieldfare.netsec.inference.ports import count_ports
from fieldfare.netsec.networks.architectures import TASK, architecture
from fieldfare.netsec.networks.netfound import NetFoundConfig
from fieldfare.netsec.networks.netmamba import NetMambaConfig

CLASSES = ("ICMP", "NAME", "WEB")
CONFIGS = {
    "netmamba": NetMambaConfig(
        byte_length=128, packets=2, header_bytes=40, embed_dim=16, depth=1, decoder_embed_dim=8,
        decoder_depth=1,
    ),
    "netfound": NetFoundConfig(16, 1, 2, 32, vocabulary="bytes", payload_tokens=2, max_bursts=4),
}  # fmt: skip
ECHO, NEIGHBOUR = bytes([8, 0, 0, 0, 0, 1, 0, 1]) + bytes(24), bytes([135, 0, 0, 0]) + bytes(20)


def icmp(number):
    """An echo request from its own address."""
    return [(float(number), ethernet(ipv4(ECHO, 1, f"10.1.0.{number}", "10.0.0.2")))]


def ask(number):
    """A flow of UDP to port 53, of its own bytes."""
    rng = np.random.default_rng(number)
    payload = rng.integers(0, 256, int(rng.integers(8, 60)), np.uint8).tobytes()
    packet = ethernet(ipv6(udp(2000 + number, 53, payload), 17), 0x86DD)
    return [(float(number), packet)]


def fetch(number):
    """A flow of TCP to port 80, of its own path."""
    path = "/" + "xyz"[number % 3] * (1 + number)
    payload = f"GET {path} HTTP/1.1".encode()
    packet = ethernet(ipv4(tcp(3000 + number, 80, payload=payload), 6, "10.0.0.1", "10.0.0.2"))
    return [(float(number), packet)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty flows a class, as one capture."""
    packets = [p for n in range(30) for p in (*icmp(n + 1), *ask(n), *fetch(n))]
    packets.append((9e3, ethernet(ipv6(NEIGHBOUR, 58), 0x86DD)))
    path = tmp_path_factory.mktemp("captures") / "c.pcap"
    path.write_bytes(pcap(packets))
    options = FlowOptions(keep_packets=72, keep_header=128, keep_payload=256)
    flows = concatenate(list(read_flows(path, options=options)))
    label = np.array([{1: 0, 58: 0, 17: 1, 6: 2}[p] for p in flows.protocol.tolist()])
    zero = np.zeros(len(flows), np.int64)
    return LabelledFlows(flows, label, zero, zero, CLASSES, ("c.pcap",), Matched())


def member(kind_name):
    torch.manual_seed(0)
    kind, config = architecture(kind_name), CONFIGS[kind_name]
    network = kind.classifier(config, len(CLASSES)).eval()
    described = ClassifierConfig(kind_name, config.to_dict(), CLASSES, ("addresses", "ports"))
    return FlowClassifier(network, described, kind_name)


def together(data, window):
    first, second = member("netmamba"), member("netfound")
    evidence = dataclasses.replace(fit_evidence([first, second], data, data), window=window)
    return FlowClassifier(first.network, first.config, "pair", evidence=evidence, second=second)


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
        np.testing.assert_allclose(cascade[passed], ensemble[passed], rtol=1e-5)
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
    assert loaded.unknown_below == 0.08
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

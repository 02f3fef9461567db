# SPDX-License-Identifier: Apache-2.0
"""Both networks behind one interface: flows in, probabilities and embeddings out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_captures import write_folder

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.flow_rows import concatenate, regroup, take
from fieldfare.netsec.inference.calibration import softmax
from fieldfare.netsec.inference.classifier import (
    BATCH,
    ClassifierConfig,
    FlowClassifier,
    load_classifier,
)
from fieldfare.netsec.networks.architectures import TASK, architecture
from fieldfare.netsec.networks.netfound import NetFoundConfig
from fieldfare.netsec.networks.netmamba import NetMambaConfig

CONFIGS = {
    "netmamba": NetMambaConfig(
        byte_length=320, packets=4, header_bytes=48, embed_dim=16, depth=2, mark_direction=True
    ),
    "netfound": NetFoundConfig(16, 1, 2, 32, vocabulary="bytes", payload_tokens=2),
}
CLASSES = ("NAME", "OTHER", "WEB")


def make(name, **more):
    torch.manual_seed(0)
    kind, network_config = architecture(name), CONFIGS[name]
    network = kind.classifier(network_config, len(CLASSES)).eval()
    with torch.no_grad():  # fresh networks hardly tell flows apart
        for label, parameter in network.named_parameters():
            if label.endswith("weight") and parameter.ndim > 1:
                parameter *= 3
    values = {"classes": CLASSES, "hidden": ("addresses", "ports")} | more
    return network, ClassifierConfig(name, network_config.to_dict(), **values)


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captures")
    write_folder(folder)
    options = FlowOptions(keep_packets=72, keep_header=128, keep_payload=256)
    return concatenate(list(read_flows(folder / "a.pcap", options=options)))


@pytest.mark.parametrize("name", CONFIGS)
def test_probabilities_and_embeddings_of_each_flow(name, flows):
    classifier = FlowClassifier(*make(name, temperature=2.0))
    found = classifier.classify(flows)
    assert found.logits.shape == (4, 3)
    assert len(found.embeddings) == 4
    np.testing.assert_allclose(found.probabilities, softmax(found.logits / 2))
    np.testing.assert_array_equal(classifier(flows), found.probabilities)
    assert np.ptp(found.logits, axis=0).max() > 1e-3  # flows are told apart
    repeated = classifier.classify(take(flows, np.arange(BATCH["cpu"] + 9) % 4))
    np.testing.assert_allclose(repeated.logits[:4], found.logits, atol=1e-5)
    np.testing.assert_allclose(repeated.logits[-3:], found.logits[[2, 3, 0]], atol=1e-5)
    assert classifier.classify(take(flows, np.array([], int))).probabilities.shape == (0, 3)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_kept_of_packets_is_enough(name, flows, tmp_path):
    write_folder(tmp_path)
    classifier = FlowClassifier(*make(name))
    kept = FlowOptions(**classifier.kept)
    lean = concatenate(list(read_flows(tmp_path / "a.pcap", options=kept)))
    np.testing.assert_array_equal(classifier(lean), classifier(flows))


def test_hidden_fields_make_no_difference_and_shown_ones_do(flows):
    data = flows.first_packets.data.copy()
    rows = np.arange(len(data))
    data[rows, flows.first_packets.transport] ^= 0xFF  # source ports
    other = dataclasses.replace(
        flows, first_packets=dataclasses.replace(flows.first_packets, data=data)
    )
    network, config = make("netmamba", optional=("ports",))
    hidden = FlowClassifier(network, config)
    shown = FlowClassifier(network, config, show=["ports"])
    np.testing.assert_array_equal(hidden(flows), hidden(other))
    assert np.abs(shown(flows) - shown(other)).max() > 1e-6
    with pytest.raises(InputError, match="trained with ttl hidden; it can be shown ports"):
        FlowClassifier(network, config, show=["ttl"])


def test_a_model_file_gives_the_classifier_back(flows, tmp_path):
    network, config = make("netfound")
    card = ModelCard("m", TASK, "A model.", dataclasses.asdict(config))
    save_model_file(tmp_path / "m.safetensors", network.state_dict(), card)
    loaded, found = load_classifier(str(tmp_path / "m.safetensors"))
    assert found.name == loaded.name == "m"
    assert loaded.classes == CLASSES
    np.testing.assert_array_equal(loaded(flows), FlowClassifier(network, config)(flows))


def test_files_that_are_no_classifiers_are_refused(tmp_path):
    kind = architecture("netmamba")
    path = tmp_path / "m.safetensors"
    config = ClassifierConfig("netmamba", CONFIGS["netmamba"].to_dict())
    tensors = kind.pretraining(CONFIGS["netmamba"]).state_dict()
    save_model_file(path, tensors, ModelCard("m", TASK, "x", dataclasses.asdict(config)))
    with pytest.raises(InputError, match="only pre-trained"):
        load_classifier(str(path))
    save_model_file(path, tensors, ModelCard("m", "other", "x", dataclasses.asdict(config)))
    with pytest.raises(InputError, match="is a other model"):
        load_classifier(str(path))
    save_model_file(path, tensors, ModelCard("m", TASK, "x", {"architecture": "netmamba"}))
    with pytest.raises(InputError, match="its card describes no usable network"):
        load_classifier(str(path))
    with pytest.raises(InputError, match="no model is named"):
        load_classifier("no_such_model")
    with pytest.raises(InputError, match="no architecture is named 'x'"):
        architecture("x")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden": ("port",)}, "no field is named 'port'"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive"),
    ],
)
def test_cards_with_impossible_values_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        ClassifierConfig("netmamba", {}, **values)


def test_packaged_models_load_and_tell_what_they_are():
    from fieldfare.common.weights import available

    models = available(TASK)
    assert models
    for name, path in models.items():
        classifier, card = load_classifier(name)
        assert len(classifier.classes) == 20
        assert card.metrics
        assert card.weights_licence == "Apache-2.0"
        assert path.stat().st_size < 10e6
        assert Path(path.with_suffix(".md")).read_text(encoding="utf-8") == card.to_markdown()


@pytest.mark.parametrize("count", [1, 3, 100])
def test_regrouping_keeps_flows_and_order(flows, count):
    pieces = [take(flows, np.array(rows, int)) for rows in ([0, 1], [2], [], [3, 0, 1, 2, 3, 0])]
    groups = list(regroup(pieces, count))
    assert [len(group) for group in groups[:-1]] == [count] * (len(groups) - 1)
    whole, expected = concatenate(groups), concatenate(pieces)
    assert np.array_equal(whole.flow_id, expected.flow_id)
    assert np.array_equal(whole.first_packets.data, expected.first_packets.data)
    assert np.array_equal(whole.first_packets.flow, expected.first_packets.flow)
    assert not list(regroup([], count))

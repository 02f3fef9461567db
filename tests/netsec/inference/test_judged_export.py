# SPDX-License-Identifier: Apache-2.0
"""What is exported is the whole classifier: both networks, port, calibration, familiarity."""

import numpy as np
import pytest
import torch
from judged_flows import make_flows, together

from fieldfare.netsec.data.masking import mask
from fieldfare.netsec.inference.export import OUTPUTS, JudgedNetworks, export_judged
from fieldfare.netsec.inference.ports import port_keys


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_flows(tmp_path_factory.mktemp("captures") / "c.pcap")


def as_inputs(judged, flows):
    """What an exported graph reads of flows: as many bursts and tokens as there can be."""
    tensors = []
    for member in judged.members:
        inputs = member.architecture.read(mask(flows, member.hidden), member.network_config)
        batch = inputs.batch(np.arange(len(flows)))
        tensors += [batch] if isinstance(batch, torch.Tensor) else list(batch)
    shapes = [tensor.shape[1:] for tensor in judged.example().values()]
    padded = []
    for tensor, shape in zip([*tensors, torch.from_numpy(port_keys(flows))], shapes, strict=True):
        padded.append(tensor.new_zeros(len(flows), *shape))
        padded[-1][tuple(slice(size) for size in tensor.shape)] = tensor
    return padded


def test_the_graph_to_export_is_the_whole_classifier(data):
    classifier = together(data, 0.4)
    wanted = classifier.classify(data.flows)
    assert 0 < (wanted.familiarity < 0.4).sum() < len(data)  # both networks count
    judged = JudgedNetworks(classifier)
    assert [n for n in judged.example() if not n.startswith("second_")] == ["bytes", "port_key"]
    with torch.inference_mode():
        found = judged(*as_inputs(judged, data.flows))
    for name, values in zip(OUTPUTS, found, strict=True):
        # Embeddings of untrained networks are nearly equal: ranks of distances hang on last digits.
        steps = len(classifier.evidence.stages[0].scores)
        atol = 1.01 / steps if name == "familiarity" else 1e-5
        np.testing.assert_allclose(values, getattr(wanted, name), atol=atol, err_msg=name)


@pytest.mark.slow
def test_onnx_runtime_judges_as_the_pair_does(data, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    classifier = together(data, 0.4)
    wanted = classifier.classify(data.flows)
    steps = len(classifier.evidence.stages[0].scores)
    target = tmp_path / "pair.onnx"
    assert export_judged(classifier, target) < 1e-4
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    judged = JudgedNetworks(classifier)
    names = [given.name for given in session.get_inputs()]
    assert names == list(judged.example())
    inputs = as_inputs(judged, data.flows)
    feed = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
    got = dict(zip(OUTPUTS, session.run(list(OUTPUTS), feed), strict=True))
    np.testing.assert_allclose(got["logits"], wanted.logits, atol=1e-5)
    # Embeddings of untrained networks are nearly equal, so that distances hang on last digits.
    apart = np.abs(got["familiarity"] - wanted.familiarity)
    assert np.median(apart) <= 1.01 / steps
    same = np.abs(got["probabilities"] - wanted.probabilities).max(axis=1) < 1e-5
    assert same.mean() > 0.95

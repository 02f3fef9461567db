# SPDX-License-Identifier: Apache-2.0
"""Weights that stay in their file: the same answers to the bit, and never more than allowed."""

import numpy as np
import pytest
from judged_flows import make_flows
from routed_models import model_file

from fieldfare.common.errors import InputError
from fieldfare.netsec.inference.classifier import load_classifier
from fieldfare.netsec.inference.streamed import stream_classifier


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    return make_flows(tmp_path_factory.mktemp("captures") / "c.pcap").flows


@pytest.mark.parametrize("kind", ["learned", "lookup"])
def test_answers_are_those_of_a_network_in_memory(kind, flows, tmp_path):
    path = model_file(tmp_path / "m.safetensors", kind, k=1)
    expected = load_classifier(str(path))[0].classify(flows)
    limit = 200_000
    found, card, cache = stream_classifier(str(path), limit)
    assert card.name == "m"
    answers = found.classify(flows)
    assert np.array_equal(answers.logits, expected.logits)
    assert np.array_equal(answers.embeddings, expected.embeddings)
    assert 0 < cache.peak <= limit
    assert cache.loads > 20


@pytest.mark.parametrize("name", ["netfound_tiny", "netfound_experts"])
def test_a_packaged_model_keeps_its_evidence(name, flows):
    expected = load_classifier(name)[0].classify(flows)
    answers = stream_classifier(name, 2**20)[0].classify(flows)
    assert np.array_equal(answers.logits, expected.logits)
    assert np.array_equal(answers.familiarity, expected.familiarity)


def test_what_cannot_be_streamed_is_refused(flows):
    for name in ("traffic_pair", "netmamba_small"):
        with pytest.raises(InputError, match="no single netFound"):
            stream_classifier(name, 2**20)
    with pytest.raises(InputError, match="memory limit"):
        stream_classifier("netfound_tiny", 2**10)[0].classify(flows)

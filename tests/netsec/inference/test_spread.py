# SPDX-License-Identifier: Apache-2.0
"""How far stochastic experts disagree is a sign of familiarity, where a model has them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from judged_flows import make_flows
from routed_models import CONFIG, classifier, dense

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, load_part, save_model_file
from fieldfare.netsec.data.flow_rows import take
from fieldfare.netsec.evaluation.fitting import fit_evidence
from fieldfare.netsec.inference.classifier import FlowClassifier, load_classifier
from fieldfare.netsec.inference.evidence import PART
from fieldfare.netsec.inference.export import export_judged
from fieldfare.netsec.inference.spread import experts_to_ask
from fieldfare.netsec.networks.architectures import TASK


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_flows(tmp_path_factory.mktemp("captures") / "c.pcap")


def thor():
    """An untrained classifier with two experts, whose answers are as sure as trained ones."""
    found = classifier("stochastic", k=1, count=2)
    with torch.no_grad():
        found.network.classifier.weight.mul_(1000)
    return found


def judged(found, evidence):
    return FlowClassifier(found.network, found.config, "thor", evidence=evidence)


def test_equal_experts_agree_and_different_ones_do_not(data):
    flows = take(data.flows, np.arange(12))
    equal = classifier("stochastic", k=1, count=2, start="copies")
    assert not equal.spread(flows, 2).any()
    apart = thor()
    found = apart.spread(flows, 2)
    assert found.shape == (12,)
    assert (found > 0).any()
    assert (found <= np.log(2)).all()
    one = apart.spread(take(flows, np.array([5])), 2)
    assert one[0] == pytest.approx(found[5], abs=1e-6)
    assert experts_to_ask(apart.network) == 2
    assert experts_to_ask(dense()) == experts_to_ask(classifier("learned").network) == 0
    with pytest.raises(ValueError, match="no 3 experts"):
        apart.spread(flows, 3)


def test_it_is_fitted_kept_in_the_file_and_used(data, tmp_path):
    found = thor()
    without = fit_evidence([found], data, data, disagreement=False)
    evidence = fit_evidence([found], data, data)
    assert (without.members, evidence.members) == (0, 2)
    assert len(evidence.stages[0].centre) == len(without.stages[0].centre) + 1
    told = judged(found, evidence).classify(data.flows)
    plain = judged(found, without).classify(data.flows)
    assert np.array_equal(told.probabilities, plain.probabilities)
    assert not np.array_equal(told.familiarity, plain.familiarity)
    # Where the experts disagree more, a flow looks stranger.
    free = data.label > 0
    moved = found.spread(data.flows, 2)[free]
    change = (told.familiarity - plain.familiarity)[free]
    assert np.corrcoef(np.argsort(np.argsort(moved)), change)[0, 1] < 0
    path = tmp_path / "thor.safetensors"
    card = ModelCard("thor", TASK, "Made up.", dataclasses.asdict(found.config))
    save_model_file(path, found.network.state_dict(), card, {PART: evidence.to_tensors()})
    again, _ = load_classifier(str(path))
    assert np.allclose(again.classify(data.flows).familiarity, told.familiarity, atol=1e-2)
    few = take(data.flows, np.flatnonzero(free)[:3])
    alone = [again.classify(take(few, np.array([n]))).familiarity[0] for n in range(3)]
    assert alone == pytest.approx(again.classify(few).familiarity.tolist())
    with pytest.raises(InputError, match="cannot"):
        export_judged(again, tmp_path / "thor.onnx")
    more = dataclasses.replace(evidence, members=3)
    save_model_file(path, found.network.state_dict(), card, {PART: more.to_tensors()})
    with pytest.raises(InputError, match="more experts than"):
        load_classifier(str(path))


def test_models_without_such_experts_are_what_they_were(data, tmp_path):
    plain = classifier("learned")
    dull = FlowClassifier(dense(CONFIG), dataclasses.replace(plain.config, experts=None), "dense")
    for found in (plain, dull):
        evidence = fit_evidence([found], data, data)
        assert evidence.members == 0
        path = tmp_path / "m.safetensors"
        card = ModelCard("m", TASK, "Made up.", dataclasses.asdict(found.config))
        save_model_file(path, found.network.state_dict(), card, {PART: evidence.to_tensors()})
        about = json.loads(bytes(load_part(path, PART)["about"].tolist()))
        assert sorted(about) == ["icmp", "rest", "stages", "unknown_below", "window"]
    assert torch.is_tensor(load_part(path, PART)["about"])

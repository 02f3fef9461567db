# SPDX-License-Identifier: Apache-2.0
"""The window cascade: the published implementation's numbers, and what it promises."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fieldfare.common.slim import cascade as slim

REFERENCE = Path(__file__).parents[2] / "reference" / "window_cascade"
EXPECTED = json.loads((REFERENCE / "expected.json").read_text())
SCORES = {
    "confidence": (slim.confidence, 1),
    "entropy": (slim.negative_entropy, -1),
    "max_logit": (slim.max_logit, -1),
    "energy": (slim.energy, -1),
}
"""Function, and the sign under which the reference keeps the score."""


@pytest.fixture(scope="module")
def tensors():
    return load_file(REFERENCE / "expected.safetensors")


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_the_published_ones(tensors, name):
    score, sign = SCORES[name]
    torch.testing.assert_close(
        score(tensors["test1"]), sign * tensors[f"unc.test1.{name}"], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("task", EXPECTED["tasks"])
def test_thresholds_windows_and_counts_are_the_published_ones(tensors, task):
    name, goal = task.split("/")
    score, _ = SCORES[name]
    expected = EXPECTED["tasks"][task]
    sure = score(tensors["val1"])
    share = int(goal.split("@")[1]) / 100
    if goal.startswith("cov"):
        right = tensors["val1"].argmax(-1) == tensors["val_y"]
        threshold = slim.threshold_at_risk(sure, right, share, ignored=500)
    else:
        threshold = slim.threshold_at_coverage(sure, share)
    assert threshold == pytest.approx(expected["tau"], abs=1e-9)

    window = slim.window_around(threshold, sure)
    assert [window.low, window.high] == pytest.approx(expected["window"], abs=1e-9)

    found = slim.cascade(tensors["test1"], lambda i: tensors["test2"][i], window, score)
    assert int(found.passed_on.sum()) == expected["passed_on"]
    assert found.cost(*EXPECTED["macs"]) == pytest.approx(expected["mean_macs"], abs=1e-6)
    top1 = (found.log_probabilities.argmax(-1) == tensors["test_y"]).double().mean() * 100
    assert float(top1) == pytest.approx(expected["top1"], abs=1e-4)


@pytest.mark.parametrize("name", ["confidence", "energy"])
def test_answers_are_the_published_ones(tensors, name):
    score, sign = SCORES[name]
    window = slim.Window(*EXPECTED["tasks"][f"{name}/cov@5"]["window"])
    found = slim.cascade(tensors["test1"], lambda i: tensors["test2"][i], window, score)
    torch.testing.assert_close(
        found.log_probabilities,  # the reference keeps the first network's bare logits outside
        torch.log_softmax(tensors[f"cascade_log_probs.{name}.cov@5"], -1),
        rtol=0,
        atol=1e-6,
    )
    torch.testing.assert_close(
        sign * found.sureness, tensors[f"cascade_scores.{name}.cov@5"], rtol=0, atol=1e-9
    )


def test_risk_coverage_is_the_published_one(tensors):
    right = tensors["val1"].argmax(-1) == tensors["val_y"]
    risk, falling = slim.risk_coverage(slim.confidence(tensors["val1"]), right)
    torch.testing.assert_close(risk.float(), tensors["risk_coverage.val.risk"])
    torch.testing.assert_close(falling, tensors["risk_coverage.val.thresholds"])


def test_inside_it_is_the_ensemble_and_outside_the_first_network_bit_for_bit(tensors):
    first, second = tensors["test1"], tensors["test2"]
    window = slim.Window(0.4, 0.7)
    found = slim.cascade(first, lambda i: second[i], window)
    ensemble = slim.mean_of_probabilities(first, second)
    alone = torch.log_softmax(first.double(), -1).float()
    inside = found.passed_on
    assert inside.any()
    assert not inside.all()
    assert torch.equal(found.log_probabilities[inside], ensemble[inside])
    assert torch.equal(found.log_probabilities[~inside], alone[~inside])


def test_second_network_sees_only_what_lies_in_the_window():
    first = torch.tensor([[5.0, 0.0], [0.1, 0.0], [0.0, 4.0]])
    asked = []

    def second(indices):
        asked.append(indices.tolist())
        return torch.zeros(len(indices), 2)

    slim.cascade(first, second, slim.Window(0.5, 0.6))
    assert asked == [[1]]
    slim.cascade(first, second, slim.Window(0.0, 0.1))
    assert asked == [[1]]


def test_few_samples_have_a_threshold():
    sure = torch.linspace(0, 1, 40, dtype=torch.float64)
    right = sure > 0.5
    assert slim.threshold_at_risk(sure, right, 0.05) == pytest.approx(0.5, abs=0.06)

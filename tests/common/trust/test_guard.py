# SPDX-License-Identifier: Apache-2.0
"""The guard: how many flagged parts are too many, its way through a model file, attacks on it."""

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.common.trust.attacks import fgsm, pgd
from fieldfare.common.trust.guard import PART, Guard, fit_guard, read_guard
from fieldfare.common.weights import ModelCard, save_model_file

GUARD = Guard(neighbours=2, rank=1, alpha=0.8, threshold=0.5, false_alarms=0.05)
CARD = ModelCard("toy", "toy", "A toy.", {})


@pytest.mark.parametrize(
    ("parts", "flagged", "alarm"),
    [
        (1, 0, False),
        (1, 1, True),
        (20, 2, False),
        (20, 4, True),
        (1000, 55, False),
        (1000, 70, True),
    ],
)
def test_alarm_where_clean_input_hardly_ever_has_so_many(parts, flagged, alarm):
    scores = np.where(np.arange(parts) < flagged, 0.1, 0.9)
    verdict = GUARD.verdict(scores)
    assert (verdict.parts, verdict.flagged, verdict.alarm) == (parts, flagged, alarm)


def test_clean_inputs_are_alarmed_of_at_most_as_often_as_said():
    rng = np.random.default_rng(0)
    alarms = [GUARD.verdict(rng.uniform(0.45, 1.45, 40)).alarm for _ in range(2000)]
    assert np.mean(alarms) <= 0.05


def test_a_score_that_is_no_number_is_flagged():
    assert GUARD.flags(np.array([np.nan, 0.5, 0.4])).tolist() == [True, False, True]


def test_fitted_on_clean_inputs_it_flags_the_share_asked_for():
    inputs = torch.linspace(0.01, 1, 200)[:, None]

    def encode(x):
        return torch.cat((x, 1 - x), 1), torch.cat((x, torch.full_like(x, 0.1)), 1)

    guard = fit_guard(encode, [lambda x: x + 0.3], [inputs[:100], inputs[100:]], rank=1)
    scores = guard.neighbourhood(encode, [lambda x: x + 0.3]).scores(inputs).numpy()
    assert guard.flags(scores).mean() == pytest.approx(0.05, abs=0.01)
    with pytest.raises(ValueError, match="fitted with 1 neighbours, not 2"):
        guard.neighbourhood(encode, [lambda x: x] * 2)


def test_it_travels_in_the_model_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model_file(path, {}, CARD, {PART: GUARD.to_tensors()})
    assert read_guard(path) == GUARD
    save_model_file(path, {"w": torch.ones(1)}, CARD)
    assert read_guard(path) is None
    save_model_file(path, {}, CARD, {PART: {"about": torch.zeros(2, dtype=torch.uint8)}})
    with pytest.raises(InputError, match="not a model's guard"):
        read_guard(path)


def test_attacks_raise_the_loss_within_their_box():
    inputs = torch.tensor([[0.2, 0.99], [0.5, 0.5]])

    def loss(x):
        return (x[:, 0] - x[:, 1] ** 2).sum() * -1

    one = fgsm(loss, inputs, 0.05, 0, 1)
    torch.testing.assert_close(one, torch.tensor([[0.15, 1.0], [0.45, 0.55]]))
    many = pgd(loss, inputs, 0.05, 0, 1, steps=4)
    for moved in (one, many):
        assert (moved - inputs).abs().max() <= 0.05 + 1e-6
        assert loss(moved) > loss(inputs)
        assert not moved.requires_grad

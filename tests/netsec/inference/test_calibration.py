# SPDX-License-Identifier: Apache-2.0
"""Temperature and the threshold for unknown flows keep what they promise."""

import numpy as np
import pytest

from fieldfare.netsec.evaluation.scores import reliability
from fieldfare.netsec.inference.calibration import (
    conformal_threshold,
    fit_temperature,
    is_unknown,
    softmax,
)


def sample(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the true distribution of the classes."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, 4))
    steps = np.cumsum(softmax(logits), axis=1)
    return logits, (rng.random((count, 1)) > steps).sum(axis=1)


@pytest.mark.parametrize("factor", [0.25, 1.0, 6.0])
def test_the_temperature_undoes_a_factor(factor):
    logits, truth = sample(20_000)
    assert fit_temperature(logits * factor, truth) == pytest.approx(factor, rel=0.05)


def test_the_temperature_is_where_the_loss_is_least():
    logits, truth = sample(300)
    logits = 5 * logits + 1000  # the level of the logits means nothing

    def loss(temperature: float) -> float:
        return -np.log(softmax(logits / temperature)[np.arange(300), truth]).mean()

    best = fit_temperature(logits, truth)
    assert loss(best) <= min(loss(best * 0.99), loss(best * 1.01))


def test_calibration_lowers_the_calibration_error():
    logits, truth = sample(20_000)
    before = reliability(truth, softmax(4 * logits)).error
    temperature = fit_temperature(4 * logits[:10_000], truth[:10_000])
    after = reliability(truth[10_000:], softmax(4 * logits[10_000:] / temperature)).error
    assert before > 0.1
    assert after < 0.02


def test_temperatures_are_bounded_and_need_numbers():
    logits = np.array([[5.0, 0.0]])
    assert 0.01 <= fit_temperature(logits, np.array([0])) < 0.2  # sure and always right
    assert fit_temperature(logits, np.array([1])) == pytest.approx(100)
    for bad in (np.array([[np.nan, 0]]), np.array([[-np.inf, 0]]), np.empty((0, 2))):
        with pytest.raises(ValueError, match="finite"):
            fit_temperature(bad, np.zeros(len(bad), int))


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_known_flows_are_called_unknown_no_more_often_than_promised(error):
    probabilities = softmax(sample(50_000)[0])
    shares = []
    for part in range(0, 1000, 100):
        threshold = conformal_threshold(probabilities[part : part + 100], error)
        shares.append(is_unknown(probabilities[1000:], threshold).mean())
    assert np.mean(shares) == pytest.approx(error, abs=0.03)


def test_thresholds_at_the_ends():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert conformal_threshold(probabilities, 0.2) == 0  # three flows cannot tell
    assert conformal_threshold(probabilities, 0.25) == 0.6
    assert conformal_threshold(probabilities, 0.99) == 0.9
    assert not is_unknown(probabilities).any()
    assert is_unknown(probabilities, 0.7).tolist() == [False, False, True]
    for error in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            conformal_threshold(probabilities, error)

# SPDX-License-Identifier: Apache-2.0
"""A temperature makes probabilities hold."""

import numpy as np
import pytest

from fieldfare.netsec.evaluation.scores import reliability
from fieldfare.netsec.inference.calibration import (
    fit_temperature,
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

# SPDX-License-Identifier: Apache-2.0
"""Probabilities that mean what they say."""

import math

import numpy as np

_LOWEST, _HIGHEST = 1e-2, 1e2


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits as probabilities, float64."""
    logits = np.asarray(logits, np.float64)
    shifted: np.ndarray = np.exp(logits - np.max(logits, axis=1, keepdims=True, initial=-np.inf))
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits as log-probabilities, float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - np.max(logits, axis=1, keepdims=True, initial=-np.inf)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature T at which softmax(logits / T) has the least negative log-likelihood.

    The loss is convex in 1 / T, so its slope is bisected.

    Args:
        logits: (N, C) on validation flows, N at least 1; log-probabilities will do.
        truth: (N,) class numbers.

    Returns:
        T in [0.01, 100]; the accuracy stays what it was.

    Raises:
        ValueError: no flows, or logits that are not finite.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """
    logits = np.asarray(logits, np.float64)
    if not len(truth) or not np.isfinite(logits).all():
        raise ValueError("a temperature needs finite logits of at least one flow")
    wanted = logits[np.arange(len(truth)), truth].mean()
    low, high = math.log(1 / _HIGHEST), math.log(1 / _LOWEST)
    for _ in range(60):
        middle = (low + high) / 2
        expected = (softmax(logits * math.exp(middle)) * logits).sum(axis=1).mean()
        if expected < wanted:  # the loss still falls as logits are sharpened
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)

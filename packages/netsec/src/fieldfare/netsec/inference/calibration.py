# SPDX-License-Identifier: Apache-2.0
"""Probabilities that mean what they say, and flows that are better called unknown."""

import math

import numpy as np

_LOWEST, _HIGHEST = 1e-2, 1e2


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits as probabilities, float64."""
    logits = np.asarray(logits, np.float64)
    shifted: np.ndarray = np.exp(logits - np.max(logits, axis=1, keepdims=True, initial=-np.inf))
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


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


def conformal_threshold(probabilities: np.ndarray, error: float) -> float:
    """The confidence below which a flow counts as unknown, by a conformal test for outliers.

    Of flows that are exchangeable with these, at most the share `error` is called unknown by
    mistake; captures of another network need not be.

    Args:
        probabilities: (N, C) on validation flows of known classes, to which the classifier was not
            fitted.
        error: in (0, 1).

    Returns:
        In [0, 1]; 0 (nothing is ever unknown) where N is too small for such an error.

    Raises:
        ValueError: an error outside (0, 1).

    Source: Bates, Candes, Lei, Romano and Sesia 2023 (arXiv 2104.08279), equation 2, with the
        greatest softmax probability as score (Hendrycks and Gimpel 2017, arXiv 1610.02136).
    """
    if not 0 < error < 1:
        raise ValueError(f"error is {error}; it must lie between 0 and 1")
    rank = math.floor((len(probabilities) + 1) * error)
    if rank < 1:
        return 0.0
    return float(np.sort(probabilities.max(axis=1))[min(rank, len(probabilities)) - 1])


def is_unknown(probabilities: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """(N,) bool, flows none of whose classes reaches the threshold; with 0 none."""
    found: np.ndarray = probabilities.max(axis=1) < threshold
    return found

# SPDX-License-Identifier: Apache-2.0
"""Scores of a classifier: macro-F1 first, per class, and how well its probabilities hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15
"""Of confidence, as in Guo et al. 2017 (arXiv 1706.04599)."""


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in B bins of equal width over [0, 1].

    Attributes:
        edges: (B + 1,).
        count: (B,) int64, flows in each bin; a bin holds its upper edge.
        confidence: (B,) mean probability of the class that was chosen, NaN in empty bins.
        accuracy: (B,) share of right choices, NaN in empty bins.
        error: expected calibration error, the mean of |accuracy - confidence| over flows.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


@dataclass(frozen=True)
class Scores:
    """Of N flows and C classes.

    Attributes:
        classes: names.
        macro_f1: mean F1 over the classes that occur in the truth. A class that is only ever
            predicted is not among them; it costs the recall of those it was predicted for.
        accuracy: share of right choices.
        precision, recall, f1: (C,) float64, 0 where undefined.
        support: (C,) int64, flows of each class in the truth.
        confusion: (C, C) int64, truth in rows, prediction in columns.
        reliability: None where only choices were given, no probabilities.
    """

    classes: tuple[str, ...]
    macro_f1: float
    accuracy: float
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    confusion: np.ndarray
    reliability: Reliability | None = None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each class that occurs in truth or prediction, for `console.table`."""
        predicted = self.confusion.sum(axis=0)
        return [
            {
                "class": name,
                "support": int(self.support[i]),
                "precision": float(self.precision[i]),
                "recall": float(self.recall[i]),
                "f1": float(self.f1[i]),
            }
            for i, name in enumerate(self.classes)
            if self.support[i] or predicted[i]
        ]

    def summary(self) -> dict[str, Any]:
        """Plain values for `--json` and files."""
        told: dict[str, Any] = {
            "flows": int(self.support.sum()),
            "macro_f1": self.macro_f1,
            "accuracy": self.accuracy,
        }
        if self.reliability is not None:
            told["expected_calibration_error"] = self.reliability.error
        return told | {"per_class": self.rows(), "confusion": self.confusion.tolist()}


def score(
    truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], bins: int = BINS
) -> Scores:
    """Compare predictions with the truth.

    Args:
        truth: (N,) class numbers, N at least 1.
        predicted: (N,) class numbers, or (N, C) probabilities.

    Raises:
        ValueError: no flows, or shapes or class numbers that do not belong together.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    count = len(classes)
    if not len(truth) or len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true classes and {len(predicted)} predictions")
    if predicted.ndim == 2 and predicted.shape[1] != count:
        raise ValueError(f"{predicted.shape[1]} probabilities for {count} classes")
    chosen = predicted.argmax(axis=1) if predicted.ndim == 2 else predicted
    for numbers in (truth, chosen):
        if numbers.min() < 0 or numbers.max() >= count:
            raise ValueError(f"class numbers must lie in 0..{count - 1}")
    confusion = np.bincount(truth * count + chosen, minlength=count**2).reshape(count, count)
    right, support, given = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = 2 * right / np.maximum(support + given, 1)
    return Scores(
        classes=tuple(classes),
        macro_f1=float(f1[support > 0].mean()),
        accuracy=float(right.sum() / support.sum()),
        precision=right / np.maximum(given, 1),
        recall=right / np.maximum(support, 1),
        f1=f1,
        support=support,
        confusion=confusion,
        reliability=reliability(truth, predicted, bins) if predicted.ndim == 2 else None,
    )


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins of confidence and the expected calibration error.

    Args:
        truth: (N,) class numbers.
        probabilities: (N, C).

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, bins) / count
        accuracy = np.bincount(place, right, bins) / count
    error = float(np.nansum(np.abs(accuracy - mean) * count) / max(len(truth), 1))
    return Reliability(edges, count, mean, accuracy, error)

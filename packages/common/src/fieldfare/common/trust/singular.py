# SPDX-License-Identifier: Apache-2.0
"""What known examples say of a new one: a classifier without training or settings.

Radhakrishnan et al. 2023, *Wide and deep neural networks achieve consistency for classification*
(arXiv 2204.14126): networks that are infinitely wide and deep are one of three classifiers, by
their activation: a majority vote, the nearest neighbour, or a singular kernel of some order; where
that order is the dimension of the sphere the inputs lie on, it is optimal with data without end.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["majority", "nearest", "singular"]


class Limit(NamedTuple):
    """What a deep network of an activation becomes; order is of the singular kernel."""

    kind: Kind
    order: float | None


def limit_of(coefficients: Sequence[float]) -> Limit:
    """The classifier at infinite width and depth of an activation.

    Args:
        coefficients: of normalised Hermite polynomials, from degree 0 on; scaled to sum of squares
            1 here.

    Raises:
        ValueError: all are zero, or it is linear.
    """
    size = math.sqrt(sum(value**2 for value in coefficients))
    if not size:
        raise ValueError("an activation that is zero everywhere")
    found = [value / size for value in coefficients]
    mean, slope = found[0], found[1] if len(found) > 1 else 0.0
    steep = sum(degree * value**2 for degree, value in enumerate(found))
    if abs(mean) > 1e-12:
        return Limit("majority", None)
    if abs(slope) < 1e-12:
        return Limit("nearest", None)
    if steep <= 1:
        raise ValueError("a linear activation has no limit of its own")
    return Limit("singular", -4 * math.log(abs(slope)) / math.log(steep))


def deep_kernel(cosine: Tensor, coefficients: Sequence[float], layers: int) -> Tensor:
    """The neural tangent kernel of an infinitely wide network on the sphere, in double precision.

    K <- K dual'(S) + dual(S), S <- dual(S), from S = K = cosine, where dual(x) is the sum of the
    squared coefficients times x^degree. Regression with it is what training the network does.

    Args:
        cosine: of pairs of inputs, any shape, 0 to 1.
        coefficients: see `limit_of`.
        layers: hidden ones. Kernels of the nearest neighbour lose their digits beyond about 6.
    """
    total = sum(value**2 for value in coefficients)
    weights = [value**2 / total for value in coefficients]
    signal = kernel = cosine.double()
    for _ in range(layers):
        steep = sum(d * w * signal ** (d - 1) for d, w in enumerate(weights) if d)
        signal = sum((w * signal**d for d, w in enumerate(weights)), torch.zeros_like(signal))
        kernel = kernel * steep + signal
    return kernel


def singular_kernel(
    known: Tensor, labels: Tensor, queries: Tensor, order: float, classes: int | None = None
) -> Tensor:
    """Shares of the classes by weights |query - known|^-order.

    Args:
        known: (n, d) float, embeddings of labelled examples; on a sphere, order d - 1 is optimal.
        labels: (n,) int64, from 0.
        queries: (m, d).
        order: above 0; large ones approach the nearest neighbour. Computed in logarithms, so that
            none is too large.
        classes: as many as there are labels when None.

    Returns:
        (m, classes) float64 that sum to 1; of a query that equals known examples, their shares.
    """
    if order <= 0:
        raise ValueError(f"order {order}: must be above 0")
    hot = torch.nn.functional.one_hot(labels, classes or -1).double()
    differences = torch.cdist(
        queries.double(), known.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    scores = -order * differences.log()
    # At a known example the weight is infinite: it and its equals count alone.
    equal = differences == 0
    scores = torch.where(equal.any(1, keepdim=True), torch.where(equal, 0.0, -torch.inf), scores)
    return scores.softmax(1) @ hot

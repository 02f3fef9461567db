# SPDX-License-Identifier: Apache-2.0
"""Where to split a network of shared weights in two: at candidates whose gradients disagree.

Few-shot NAS by gradient matching (Hu et al. 2022, arXiv 2203.15207). Candidates that pull the
shared weights in different directions should not share them.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["filters", "whole", "square"]


class Split(NamedTuple):
    """Two groups of candidates.

    Attributes:
        within: sum of the distances inside both groups.
        between: mean distance over pairs of candidates of different groups, less that inside; it
            may be compared between layers of different numbers of candidates.
    """

    groups: tuple[tuple[int, ...], tuple[int, ...]]
    within: float
    between: float


def distances(gradients: Sequence[Sequence[Tensor]], kind: Kind = "filters") -> Tensor:
    """How much the gradients of the shared weights differ: (candidates, candidates).

    Args:
        gradients: of each candidate, those of every shared tensor.
        kind: `filters` adds 1 - cosine over the filters (the first axis) of all tensors of two axes
            or more; `whole` takes all tensors as one vector; `square` sums squared differences.
    """
    count = len(gradients)
    found = torch.zeros(count, count)
    for first, second in combinations(range(count), 2):
        pairs = list(zip(gradients[first], gradients[second], strict=True))
        if kind == "whole":
            pairs = [(_joined(gradients[first]), _joined(gradients[second]))]
        found[first, second] = sum(_distance(a, b, kind) for a, b in pairs)
    return found + found.T


def _joined(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])[None]


def _distance(a: Tensor, b: Tensor, kind: Kind) -> float:
    if kind == "square":
        return float((a - b).square().sum())
    if a.ndim < 2:
        return 0.0
    return float((1 - torch.cosine_similarity(a.flatten(1), b.flatten(1), 1)).sum())


def best_split(distance: Tensor) -> Split:
    """The two groups with the smallest sum of distances inside, by trying all (at most 20).

    Raises:
        ValueError: fewer than 2 candidates or more than 20.
    """
    count = len(distance)
    if not 2 <= count <= 20:
        raise ValueError(f"{count} candidates: can split 2 to 20")
    every = range(count)
    best: tuple[float, tuple[int, ...], tuple[int, ...]] | None = None
    for size in range(1, count // 2 + 1):
        for group in combinations(every, size):
            rest = tuple(index for index in every if index not in group)
            within = _inside(distance, group) + _inside(distance, rest)
            if best is None or within < best[0]:
                best = within, group, rest
    assert best is not None
    within, group, rest = best
    across = distance[list(group)][:, list(rest)].mean()
    pairs = sum(len(g) * (len(g) - 1) // 2 for g in (group, rest))
    return Split((group, rest), within, float(across) - within / max(pairs, 1))


def _inside(distance: Tensor, group: Sequence[int]) -> float:
    chosen = distance[list(group)][:, list(group)]
    return float(chosen.sum() / 2)


def layer_to_split(gradients: Mapping[str, Sequence[Sequence[Tensor]]]) -> tuple[str, Split]:
    """The layer whose candidates separate most, and how.

    Args:
        gradients: layer -> candidate -> the gradients of the shared tensors while only this
            candidate runs in the layer, averaged over batches.
    """
    splits = {name: best_split(distances(found)) for name, found in gradients.items()}
    name = max(splits, key=lambda layer: splits[layer].between)
    return name, splits[name]

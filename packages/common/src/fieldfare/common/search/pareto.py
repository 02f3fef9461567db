# SPDX-License-Identifier: Apache-2.0
"""Fronts of points with several objectives, lower is better; selection and hypervolume."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def dominates(values: Values) -> NDArray[np.bool_]:
    """(n, n): whether row i is nowhere worse than row j and somewhere better."""
    no_worse = (values[:, None] <= values[None]).all(-1)
    better = (values[:, None] < values[None]).any(-1)
    return np.asarray(no_worse & better)


def ranks(values: Values) -> NDArray[np.int64]:
    """The front of each point: 0 is dominated by none, 1 by those of 0 only, ... (n,)."""
    beats = dominates(values)
    found = np.full(len(values), -1, np.int64)
    left, rank = np.ones(len(values), bool), 0
    while left.any():
        front = left & ~(beats & left[:, None]).any(0)
        found[front] = rank
        left &= ~front
        rank += 1
    return found


def crowding(values: Values) -> Values:
    """How far apart the neighbours of a point lie, summed over objectives; infinite at the ends."""
    count = len(values)
    found = np.zeros(count)
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = float(column[order[-1]] - column[order[0]])
        found[order[[0, -1]]] = np.inf
        if count > 2 and span > 0:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return found


def select(values: Values, count: int) -> NDArray[np.int64]:
    """Indices of the best points: by front, then by crowding within the last (NSGA-II)."""
    chosen: list[int] = []
    found = ranks(values)
    for rank in range(int(found.max(initial=-1)) + 1):
        front = np.flatnonzero(found == rank)
        if len(chosen) + len(front) > count:
            far = np.argsort(-crowding(values[front]), kind="stable")
            front = front[far[: count - len(chosen)]]
        chosen += front.tolist()
        if len(chosen) >= count:
            break
    return np.array(chosen, np.int64)


def select_with_slow_learners(values: Values, count: int, cost: int = 1) -> NDArray[np.int64]:
    """Select also by the reversed cost, in turn, so that large networks survive their slow start.

    The fronts over (quality, cost) favour what is small and quickly trained; those over (quality,
    -cost) hold the large ones (CARS; EAGAN, arXiv 2111.15097). Each index is taken once: a front
    that holds some already gives the next ones.

    Args:
        cost: the column that is reversed.
    """
    reversed_values = values.copy()
    reversed_values[:, cost] *= -1
    orders = [_by_front(values), _by_front(reversed_values)]
    chosen: list[int] = []
    while len(chosen) < min(count, len(values)):
        order = orders[len(chosen) % 2]
        chosen.append(next(index for index in order if index not in chosen))
    return np.array(chosen, np.int64)


def _by_front(values: Values) -> list[int]:
    found, far = ranks(values), np.empty(len(values))
    for rank in range(int(found.max(initial=-1)) + 1):
        front = found == rank
        far[front] = crowding(values[front])
    order: list[int] = np.lexsort((np.arange(len(values)), -far, found)).tolist()
    return order


def hypervolume(values: Values, reference: Values) -> float:
    """The volume that points dominate, up to a reference point; exact, by slicing.

    Args:
        values: (n, objectives).
        reference: (objectives,); points that do not lie below it count nothing.
    """
    inside = values[(values < reference).all(-1)]
    if not len(inside):
        return 0.0
    if values.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[ranks(inside) == 0]
    inside = inside[np.argsort(inside[:, -1], kind="stable")]
    edges = [*inside[1:, -1], reference[-1]]
    return sum(
        hypervolume(inside[: place + 1, :-1], reference[:-1]) * float(edge - point[-1])
        for place, (point, edge) in enumerate(zip(inside, edges, strict=True))
        if edge > point[-1]
    )

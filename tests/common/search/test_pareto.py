# SPDX-License-Identifier: Apache-2.0
"""Fronts, selection and hypervolume against counting by hand and by brute force."""

import numpy as np
import pytest

from fieldfare.common.search.pareto import (
    crowding,
    hypervolume,
    ranks,
    select,
    select_with_slow_learners,
)


def test_ranks_are_those_of_peeling_fronts() -> None:
    values = np.random.default_rng(0).random((200, 2))
    left, rank, expected = set(range(200)), 0, {}
    while left:
        front = {
            i
            for i in left
            if not any(
                (values[j] <= values[i]).all() and (values[j] < values[i]).any() for j in left
            )
        }
        expected |= dict.fromkeys(front, rank)
        left, rank = left - front, rank + 1
    assert ranks(values).tolist() == [expected[i] for i in range(200)]


def test_selection_takes_whole_fronts_first() -> None:
    values = np.random.default_rng(1).random((100, 3))
    rank = ranks(values)
    for count in (1, 10, 40, 100):
        chosen = select(values, count)
        assert len(set(chosen.tolist())) == count
        left = np.setdiff1d(np.arange(100), chosen)
        assert not len(left) or rank[chosen].max() <= rank[left].min()


def test_selection_keeps_large_slow_learners() -> None:
    rng = np.random.default_rng(2)
    size = np.repeat([1.0, 2.0, 9.0], 20)
    error = 0.3 + 0.1 * size / 9 + 0.01 * rng.random(60)  # the large ones are worst so far
    values = np.stack([error, size], axis=1)
    assert size[select(values, 12)].max() < 9
    chosen = select_with_slow_learners(values, 12)
    assert len(set(chosen.tolist())) == 12
    assert size[chosen].max() == 9
    assert 0 < (size[chosen] == 9).sum() < 12


def test_crowding_is_infinite_at_the_ends() -> None:
    values = np.array([[0.0, 3.0], [1.0, 1.0], [2.0, 0.5], [3.0, 0.0]])
    far = crowding(values)
    assert np.isinf(far[[0, 3]]).all()
    assert far[1] == pytest.approx(2 / 3 + 2.5 / 3)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_hypervolume_is_what_random_points_find(objectives: int) -> None:
    rng = np.random.default_rng(3)
    values = rng.random((12, objectives))
    probes = rng.random((40_000, objectives))
    covered = (values[None] <= probes[:, None]).all(-1).any(1).mean()
    assert hypervolume(values, np.ones(objectives)) == pytest.approx(covered, abs=0.01)


def test_points_beyond_the_reference_count_nothing() -> None:
    assert hypervolume(np.array([[2.0, 0.0]]), np.ones(2)) == 0
    square = np.array([[0.5, 0.5]])
    assert hypervolume(square, np.ones(2)) == pytest.approx(0.25)
    assert hypervolume(np.concatenate([square, square]), np.ones(2)) == pytest.approx(0.25)

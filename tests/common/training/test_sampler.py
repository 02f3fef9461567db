# SPDX-License-Identifier: Apache-2.0
"""The order of samples depends on the seed and the step, and on nothing else."""

import pickle
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw, DrawSampler


def batches(
    *, length: int = 13, batch: int = 4, seed: int = 0, first: int = 0, last: int = 20,
    rank: int = 0, world: int = 1,
) -> list[list[Draw]]:  # fmt: skip
    sampler = DrawSampler(length, batch, seed=seed, first=first, last=last, rank=rank, world=world)
    result = list(sampler)
    assert len(result) == len(sampler)
    return result


@given(
    length=st.integers(1, 40), share=st.integers(1, 5), world=st.integers(1, 4), seed=st.integers(0)
)
def test_processes_see_together_exactly_what_one_sees_alone(
    length: int, share: int, world: int, seed: int
) -> None:
    common = {"length": length, "batch": share * world, "seed": seed, "last": 8}
    alone = batches(**common)
    shares = [batches(**common, rank=rank, world=world) for rank in range(world)]
    together = [list(chain.from_iterable(step)) for step in zip(*shares, strict=True)]
    assert together == alone


@given(length=st.integers(1, 40), batch=st.integers(1, 9), first=st.integers(0, 20))
def test_resuming_at_any_step_goes_on_as_if_never_stopped(
    length: int, batch: int, first: int
) -> None:
    whole = batches(length=length, batch=batch)
    assert batches(length=length, batch=batch, first=first) == whole[first:]


def test_each_epoch_is_another_permutation_and_each_draw_has_its_own_noise() -> None:
    draws = list(chain.from_iterable(batches(last=13)))  # four epochs of thirteen
    epochs = [[draw.index for draw in draws[i : i + 13]] for i in range(0, 52, 13)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert Counter(draw.seed for draw in draws).most_common(1)[0][1] == 1
    assert draws[0].rng().random() == draws[0].rng().random() != draws[1].rng().random()


def test_seed_changes_order_and_noise() -> None:
    assert batches(seed=0)[0] != batches(seed=1)[0]


def test_draw_reaches_a_loading_process_whole() -> None:
    draw = Draw(3, (0, 7))
    assert pickle.loads(pickle.dumps(draw)) == draw


def test_what_cannot_be_shared_or_is_empty_is_refused() -> None:
    with pytest.raises(InputError, match="batch size 3 is not a multiple of 2 processes"):
        batches(batch=3, world=2)
    with pytest.raises(InputError, match="the data set is empty"):
        batches(length=0)

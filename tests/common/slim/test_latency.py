# SPDX-License-Identifier: Apache-2.0
"""Latency slimming: budgets met, every step the best of all, against brute force."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from fieldfare.common.slim.latency import MixedBlock, Slot, chosen, slim_to


def toy(seed: int) -> list[Slot]:
    """Six slots of two or three candidates."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(6):
        count = int(rng.integers(2, 4))
        times = np.sort(rng.uniform(0.5, 5, count))[::-1]
        worths = np.sort(rng.uniform(0, 1, count))[::-1]
        found.append(Slot(tuple(times.tolist()), tuple(worths.tolist())))
    return found


def totals(slots, own):
    pairs = list(zip(slots, own, strict=True))
    return sum(s.milliseconds[k] for s, k in pairs), sum(s.worths[k] for s, k in pairs)


@pytest.mark.parametrize("seed", range(8))
def test_every_step_is_the_best_of_all_and_the_budget_is_met(seed):
    slots = toy(seed)
    whole, least = totals(slots, [0] * 6)[0], sum(s.milliseconds[-1] for s in slots)
    budget = (whole + least) / 2
    steps = slim_to(slots, budget)
    own, time = [0] * 6, whole
    for step in steps:
        actions = {}
        for i, slot in enumerate(slots):
            if own[i] + 1 < len(slot.worths):
                after = [k + (j == i) for j, k in enumerate(own)]
                (t0, w0), (t1, w1) = totals(slots, own), totals(slots, after)
                actions[i] = (w0 - w1) / (t0 - t1)
        assert actions[step.slot] == pytest.approx(min(actions.values()))
        own[step.slot] += 1
        assert own[step.slot] == step.candidate
        assert step.milliseconds < time
        time = step.milliseconds
    assert time <= budget
    assert chosen(slots, steps) == own
    assert totals(slots, own)[0] == pytest.approx(time)
    best = max(
        worth
        for k in product(*(range(len(s.worths)) for s in slots))
        if (found := totals(slots, k))[0] <= budget and (worth := found[1]) >= 0
    )
    assert totals(slots, own)[1] >= 0.75 * best  # greedy; here at least 0.78 of the optimum


def test_with_convex_slots_greedy_is_never_beaten_at_its_own_time():
    slots = [Slot((3.0, 2.0, 1.0), (a, 0.6 * a, 0.0)) for a in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    for budget in (17.0, 14.0, 10.0, 7.0):
        own = chosen(slots, slim_to(slots, budget))
        time, worth = totals(slots, own)
        for other in product(range(3), repeat=6):
            found = totals(slots, other)
            assert found[0] > time or found[1] <= worth + 1e-9


def test_nothing_to_do_and_nothing_that_fits():
    slots = toy(0)
    assert slim_to(slots, 100) == []
    with pytest.raises(ValueError, match="the smallest network takes"):
        slim_to(slots, 0.1)
    with pytest.raises(ValueError, match="must fall"):
        Slot((1.0, 2.0), (1.0, 0.0))
    with pytest.raises(ValueError, match="1 times and 2 worths"):
        Slot((1.0,), (1.0, 0.0))


def test_a_slot_learns_which_candidate_serves():
    wrong, right = nn.Linear(3, 3), nn.Identity()
    block = MixedBlock([wrong, right], temperature=0.5).train()
    optimizer = torch.optim.Adam([block.alpha], 0.1)
    x = torch.randn(16, 3)
    for _ in range(60):
        optimizer.zero_grad()
        (block(x) - x).square().mean().backward()
        optimizer.step()
    assert block.worths()[0] < 0.2
    assert block.worths()[1] == 1
    assert torch.equal(block.eval()(x), x)
    with pytest.raises(ValueError, match="at least two candidates"):
        MixedBlock([right])

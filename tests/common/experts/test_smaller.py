# SPDX-License-Identifier: Apache-2.0
"""Experts merged, pruned by task, averaged: what must stay as it was, does."""

import copy

import pytest
import torch

from fieldfare.common.experts import (
    Bank,
    ExpertLayer,
    LinearRouter,
    RandomRouter,
    RecurrentRouter,
    ResidualRouter,
    State,
    TopK,
    Weights,
)
from fieldfare.common.experts.lowrank import Sensitivity, factorise, share_kept
from fieldfare.common.experts.merge import align, group, merge, numbers_of_groups, soup
from fieldfare.common.experts.prune import clusters, keep_for_task, select
from fieldfare.common.experts.recycle import (
    by_activation,
    copies,
    importance,
    shared_and_own,
    smaller,
    stack,
    units,
)
from fieldfare.common.experts.usage import Statistics

FORMS = [(False, False), (True, False), (True, True)]


def permuted(bank, experts=4):
    """Copies of one expert, each with its hidden units in another order."""
    orders = [torch.arange(bank.hidden), *(torch.randperm(bank.hidden) for _ in range(experts - 1))]
    return bank.like(stack([units(bank.fetch(0), order, bank.gated) for order in orders]))


@pytest.mark.parametrize(("gated", "bias"), FORMS)
def test_permuted_copies_merge_into_one(gated, bias):
    dense = Bank(1, 8, 12, activation="silu", gated=gated, bias=bias)
    bank = permuted(dense)
    aligned, orders = align(bank)
    assert not torch.equal(orders[0], orders[1])
    merged = merge(aligned, torch.zeros(4).long(), torch.tensor([0.4, 0.3, 0.2, 0.1]))
    assert merged.matrices == 1
    layer = ExpertLayer(LinearRouter(8, 4), TopK(2), [bank])
    x = torch.randn(30, 8)
    before = layer(x).output
    layer.groups[0] = merged
    assert (layer(x).output - before).abs().max() < 1e-6
    together = soup([dense, bank.like(Weights(*stack([bank.fetch(2)])))])
    assert (together.always(x) - dense.always(x)).abs().max() < 1e-6


def test_what_was_never_used_weighs_nothing_and_a_dead_group_is_averaged():
    bank = Bank(4, 8, 6)
    merged = merge(bank, torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert torch.allclose(merged.inner[0], bank.inner[0])
    assert torch.allclose(merged.inner[1], (bank.inner[2] + bank.inner[3]) / 2)


def test_equal_use_is_settled_by_number():
    usage = torch.full((2, 4), 0.25)
    assert numbers_of_groups(usage, 1.5) == [2, 1]
    assert numbers_of_groups(usage, 4) == [4, 4]
    found = group(torch.eye(4), torch.full((4,), 0.25), 2)
    assert found.cores.tolist() == [0, 1]
    assert found.labels.tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match="must be from 1 to 4"):
        numbers_of_groups(usage, 5)


ROUTERS = [
    lambda: LinearRouter(8, 6, bias=True),
    lambda: RandomRouter(8, 6),
    lambda: RecurrentRouter(8, 6, 5),
]


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("gated", [False, True])
def test_taking_unused_experts_away_changes_no_bit(router, gated):
    layer = ExpertLayer(router(), TopK(2), [Bank(6, 8, 12, gated=gated)]).eval()
    x = torch.randn(400, 8)
    logits = layer.router(x, State())[0]
    used = TopK(2)(logits).chosen
    task = x[~used[:, [1, 4]].any(dim=1)]
    assert len(task) > 20
    statistics = Statistics(6)
    output, choice, _ = layer(task)
    statistics.add(choice)
    keep = keep_for_task(statistics, 1)
    assert 1 not in keep
    assert 4 not in keep
    reduced = select(layer, keep)
    assert torch.equal(reduced(task).output, output)
    assert reduced.router.count == len(keep) == reduced.count
    rows = sum(p.numel() for p in reduced.parameters())
    assert rows < sum(p.numel() for p in layer.parameters())
    copied = copy.deepcopy(reduced)
    copied.load_state_dict(reduced.state_dict())
    assert torch.equal(copied(task).output, output)


def test_only_two_used_of_two_chosen_still_change_no_bit():
    layer = ExpertLayer(LinearRouter(8, 4), TopK(2), [Bank(4, 8, 6)]).eval()
    layer.router.weight.data[2:] = -layer.router.weight.data[:2].abs()
    x = torch.randn(300, 8).abs()
    layer.router.weight.data[:2].abs_()
    output, choice, _ = layer(x)
    assert choice.usage().tolist() == [0.5, 0.5, 0, 0]
    assert torch.equal(select(layer, [0, 1])(x).output, output)


def test_merged_experts_can_be_taken_away_too():
    bank = merge(Bank(6, 8, 12), torch.tensor([0, 1, 0, 2, 1, 2]), torch.ones(6))
    layer = ExpertLayer(LinearRouter(8, 6), TopK(1), [bank])
    x = torch.randn(200, 8)
    choice = layer(x).choice
    task = choice.chosen[:, [0, 2, 3]].any(dim=1)
    reduced = select(layer, [0, 2, 3])
    assert reduced.groups[0].matrices == 2
    assert torch.equal(reduced(x[task]).output, layer(x[task]).output)


def test_experts_whose_logits_go_together(examples):
    given = examples["task_expert_clusters"]
    logits = torch.tensor(given["router_logits(tokens,experts)"])
    statistics = Statistics(4)
    statistics.add(TopK(1)(logits))
    expected = torch.tensor(given["correlation"]).double()
    assert (statistics.correlation() - expected).abs().max() < 1e-4
    assert statistics.usage.tolist() == given["usage_top1"]
    assert clusters(statistics.correlation(), 2) == given["clusters_at_2"]
    assert keep_for_task(statistics, 1) == [0, 1, 3]
    assert keep_for_task(statistics, 2) == [0, 3]
    assert keep_for_task(statistics, 4) == [0]
    with pytest.raises(ValueError, match="at least 1"):
        keep_for_task(statistics, 0.5)


def test_statistics_of_parts_are_those_of_the_whole():
    logits, mask = torch.randn(4, 10, 5), torch.rand(4, 10) > 0.3
    whole, parts = Statistics(5), Statistics(5)
    whole.add(TopK(2)(logits[mask]))
    for row in range(4):
        parts.add(TopK(2)(logits[row : row + 1], mask[row : row + 1]))
    assert torch.allclose(whole.similarity(), parts.similarity())
    assert torch.allclose(whole.correlation(), parts.correlation())
    assert torch.equal(whole.chosen, parts.chosen)
    assert torch.allclose(whole.correlation().float(), torch.corrcoef(logits[mask].T), atol=1e-5)
    with pytest.raises(ValueError, match="must be finite"):
        whole.add(TopK(1)(torch.tensor([[0.0, float("-inf"), 0, 0, 0]])))


def test_layers_that_cannot_be_pruned_say_so():
    layer = ExpertLayer(ResidualRouter(8, 4), TopK(1), [Bank(4, 8, 6)])
    with pytest.raises(ValueError, match="ResidualRouter cannot"):
        select(layer, [0])
    layer.router = LinearRouter(8, 4)
    for wrong in ([], [1, 0], [4], [0, 0]):
        with pytest.raises(ValueError, match="rising numbers below 4"):
            select(layer, wrong)


@pytest.mark.parametrize(("gated", "bias"), FORMS)
def test_a_domains_expert_is_the_layer_without_the_other_units(gated, bias):
    dense = Bank(1, 8, 12, activation="silu", gated=gated, bias=bias)
    sizes = torch.stack([importance(dense, torch.randn(50, 8) + shift) for shift in range(3)])
    masks = by_activation(sizes, 6)
    assert masks.sum(dim=1).tolist() == [6, 6, 6]
    masks[:, 0] = True
    masks = by_activation(sizes + 9 * masks.all(dim=0), 6)
    shared, own = shared_and_own(dense, masks)
    x = torch.randn(20, 8)
    for domain in range(3):
        left = copy.deepcopy(dense)
        left.outer.data[0][:, ~masks[domain]] = 0
        found = own.run(x, own.fetch(domain)) + (0 if shared is None else shared.always(x))
        assert (found - left.always(x)).abs().max() < 1e-6
    with pytest.raises(ValueError, match="units of its own"):
        shared_and_own(dense, masks[:1].repeat(2, 1))
    with pytest.raises(ValueError, match="of 12 hidden units"):
        by_activation(sizes, 13)


def test_among_equal_units_exactly_as_many_as_asked_are_kept():
    sizes = torch.ones(2, 8)
    assert by_activation(sizes, 3).sum(dim=1).tolist() == [3, 3]
    assert by_activation(sizes, 3, compat="published").sum(dim=1).tolist() == [0, 0]


def test_a_small_sibling_has_the_units_that_matter():
    dense = Bank(1, 8, 16, gated=True)
    sizes = torch.arange(16.0)
    small = smaller(dense, sizes, 1 / 8)
    assert small.hidden == 2
    assert torch.equal(small.outer[0], dense.outer[0][:, [14, 15]])
    x = torch.randn(5, 8)
    assert (smaller(dense, sizes, 1.0).always(x) - dense.always(x)).abs().max() < 1e-6


def test_rank_and_rows():
    weight = torch.randn(12, 3) @ torch.randn(3, 20)
    factors = factorise(weight, 0.41)  # rank 4 holds it all
    assert factors.left.shape == (12, 4)
    assert factors.remainder.abs().max() < 1e-5
    assert share_kept(0, 10, 60, 0.1) == 1
    assert share_kept(99, 10, 60, 0.1) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no gradient"):
        Sensitivity().rows(0.5)


def test_copies_are_apart():
    bank = copies(Bank(1, 8, 6), 3)
    bank.inner.data[0] += 1
    assert not torch.equal(bank.inner[0], bank.inner[1])

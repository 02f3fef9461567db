# SPDX-License-Identifier: Apache-2.0
"""The oracle of skip, small and big; gates over past events; both worked by hand first."""

import itertools

import pytest
import torch
from torch import nn

from fieldfare.common.experts import Bank, ExpertLayer, State
from fieldfare.common.experts.choice import TopK
from fieldfare.common.experts.events import EventGate, GateRouter, pooled, truncate, weighted
from fieldfare.common.experts.glider import LocalGlobalRouter, adapters, glider, likeness
from fieldfare.common.experts.losses import consistency, contrast, contrast_of
from fieldfare.common.experts.oracle import difficulty, oracle
from fieldfare.common.experts.recipes import build
from fieldfare.common.experts.stochastic import force

NAMES = ["skip", "small", "big"]
COSTS = [0, 1, 4]


def loss_of(given):
    def loss(path):
        total = given["base_loss"] - sum(
            given["gain"][NAMES[choice]][layer] for layer, choice in enumerate(path)
        )
        return total + (0.25 if sum(choice == 2 for choice in path) >= 2 else 0)

    return loss


def test_the_oracle_worked_by_hand(examples):
    given = examples["duo_oracle"]
    budgets = [int(budget) for budget in given["best_by_budget"]]
    found = oracle(loss_of(given), COSTS, 3, budgets)
    for budget, best in zip(budgets, found, strict=True):
        expected = given["best_by_budget"][str(budget)]
        assert best.loss == pytest.approx(expected["loss"], abs=1e-5)
        assert best.cost == expected["cost"]
        assert [NAMES[choice] for choice in best.path] == expected["path"]
    assert loss_of(given)((2, 2, 2)) == pytest.approx(given["all_big_loss"])
    assert difficulty(loss_of(given)((1, 1, 1)), found[-1].loss) == pytest.approx(0.3)


@pytest.mark.parametrize("layers", [4, 10])
def test_more_budget_is_never_worse_nor_is_the_oracle_than_all_big(layers):
    generator = torch.Generator().manual_seed(1)
    table = torch.rand(layers, 3, generator=generator)
    pairs = torch.rand(layers, layers, 3, 3, generator=generator)

    def loss(path):
        own = sum(float(table[layer, choice]) for layer, choice in enumerate(path))
        return own + sum(
            float(pairs[a, b, path[a], path[b]])
            for a, b in itertools.combinations(range(layers), 2)
        )

    budgets = [*range(0, 4 * layers + 1, layers), 4 * layers]
    found = oracle(loss, COSTS, layers, budgets, beam=8)
    losses = [best.loss for best in found]
    assert losses == sorted(losses, reverse=True)
    assert all(best.cost <= budget for best, budget in zip(found, budgets, strict=True))
    assert losses[-1] <= loss((2,) * layers)
    assert found[0].path == (0,) * layers
    with pytest.raises(ValueError, match="the cheapest path costs"):
        oracle(loss, [1, 2], layers, [layers - 1])


def test_a_token_skips_runs_small_or_runs_whole():
    dense = Bank(1, 8, 16, gated=True)
    layer = build("duo", dense, importance=torch.arange(16.0))
    x = torch.randn(5, 8)
    outputs = []
    for choice in range(3):
        force(layer, [choice])
        outputs.append(layer(x).output)
        assert layer.macs(layer(x).choice) == [0, 5 * 3 * 8 * 2, 5 * 3 * 8 * 16][choice]
    with pytest.raises(ValueError, match="shorter"):
        force(layer, [])
    assert not outputs[0].any()
    assert (outputs[2] - dense.always(x)).abs().max() < 1e-6
    assert (outputs[1] - outputs[2]).abs().max() > 1e-3


def test_a_gate_over_events_worked_by_hand(examples):
    given = examples["aw_moe"]
    gate, weight = torch.tensor([given["item_gate"]]), torch.tensor([given["item_weight"]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    mixed = pooled(weight, gate, mask)
    assert mixed[0].tolist() == pytest.approx(given["gate"], abs=1e-5)
    score = float((mixed[0] @ torch.tensor(given["expert_scores"])).sigmoid())
    assert score == pytest.approx(given["score"], abs=1e-5)
    mask[0, 1] = False
    assert pooled(weight, gate, mask)[0].tolist() == pytest.approx(given["masked_gate"], abs=1e-5)


def test_the_contrast_worked_by_hand(examples):
    given = examples["aw_moe_contrast"]
    each = contrast_of(torch.tensor(given["cosine"]), 0.1)
    assert each.tolist() == pytest.approx(given["loss_tau0_1"], abs=1e-5)
    assert float(each.mean()) == pytest.approx(given["mean"], abs=1e-5)
    gates = torch.randn(4, 5)
    assert float(contrast(gates, gates).mean()) < float(contrast(gates, gates.roll(1, 0)).mean())


def test_a_gate_reads_only_what_was_seen():
    gate = EventGate(6, 4, 3)
    events, query = torch.randn(5, 7, 6), torch.randn(5, 4)
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[:, 4:] = False
    found = gate(events, query, mask)
    assert found.shape == (5, 3)
    assert (gate(events[:, :4], query, mask[:, :4]) - found).abs().max() < 1e-6
    assert not gate(events, query, torch.zeros_like(mask)).any()
    layer = ExpertLayer(GateRouter(3), weighted, [Bank(3, 8, 5)])
    x = torch.randn(10, 6, 8)  # two sequences to a flow
    output, choice, _ = layer(x, State(task=found))
    assert torch.allclose(choice.weights[3, 0].float(), found[1])
    bank = layer.groups[0]
    expected = sum(found[1, e] * bank.run(x[3], bank.fetch(e)) for e in range(3))
    assert (output[3] - expected).abs().max() < 1e-6
    with pytest.raises(ValueError, match="`task`"):
        layer(x)


def test_truncated_histories_keep_their_first_events():
    mask = torch.ones(200, 9, dtype=torch.bool)
    mask[:, 6:] = False
    cut = truncate(mask, torch.Generator().manual_seed(0))
    lengths = cut.sum(dim=1)
    assert sorted(set(lengths.tolist())) == [1, 2, 3, 4, 5, 6]
    assert torch.equal(cut, torch.arange(9) < lengths[:, None])
    assert not truncate(torch.zeros(3, 4, dtype=torch.bool)).any()


def test_equal_answers_are_consistent():
    logits = torch.randn(4, 7) * 40
    assert float(consistency(logits, logits)) == 0
    far = consistency(logits, -logits)
    assert bool(far.isfinite())
    assert float(far) > 0


def test_one_adapter_is_plain_lora_and_flows_have_tasks_of_their_own():
    base, down, up = nn.Linear(8, 5), torch.randn(2, 8), torch.randn(5, 2)
    bank = adapters([(down, up)], alpha=4)
    x = torch.randn(4, 3, 8)
    router = LocalGlobalRouter(torch.randn(1, 8), torch.randn(1, 6))
    layer = glider(base, bank, router, TopK(2))
    tasks = torch.randn(2, 6)
    expected = base(x) + x @ down.T @ up.T * 2
    assert (layer(x, State(task=tasks)).output - expected).abs().max() < 1e-5
    many = LocalGlobalRouter(torch.randn(3, 8), torch.randn(3, 6))
    logits = many(x, State(task=tasks))[0]
    assert torch.equal(logits[2:], many(x[2:], State(task=tasks[1]))[0])
    with pytest.raises(ValueError, match="`task`"):
        layer(x)


def test_adapters_of_far_sites_get_no_token():
    sites, x = torch.eye(3, 6), torch.randn(4, 3, 8)
    near = LocalGlobalRouter(torch.randn(3, 8), sites, scale=0.01, least=0.5)
    task = torch.tensor([1.0, 0.9, 0.0, 0.0, 0.0, 0.0])
    assert torch.equal(likeness(task, sites) >= 0.5, torch.tensor([True, True, False]))
    choice = TopK(2)(near(x, State(task=task))[0])
    assert choice.chosen[..., :2].all()
    assert not choice.weights[..., 2].any()
    alone = TopK(2)(near(x, State(task=sites[2]))[0])
    assert torch.equal(alone.chosen.sum(dim=-1), torch.ones(4, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="like no adapter's"):
        near(x, State(task=torch.stack([sites[2], -sites[2]])))

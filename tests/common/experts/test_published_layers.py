# SPDX-License-Identifier: Apache-2.0
"""MoE++, SMoE-Dropout and RMoE: what the published layers compute, gradients included."""

import pytest
import torch
from published_blocks import assert_near, part, published
from torch import nn
from torch.nn import functional as F

from fieldfare.common.experts import (
    Bank,
    Choice,
    ExpertLayer,
    RandomRouter,
    RecurrentRouter,
    State,
    TopK,
    scheduled_k,
    set_experts_per_token,
)
from fieldfare.common.experts.losses import balance
from fieldfare.common.experts.plusplus import PlusPlusTopK, heterogeneous_cost, plus_plus


def stacked(given, pattern, numbers):
    """Weights of experts under one name each, as a bank holds them."""
    return torch.stack([given[pattern.format(number)] for number in numbers])


PLUS_PLUS = {
    "three_layers": (3, True, {}),
    "three_layers_one_linear_gate": (3, False, {}),
    "two_layers_topk_then_softmax": (2, True, {"mixtral": True}),
    "two_layers_logits_norm_no_mul": (2, True, {"spread": 0.7}),
}


def plus_plus_layer(given, number, two_layer, *, mixtral=False, spread=None):
    given = part(given, f"layer{number}.sd.moe.")
    bank = Bank(4, 16, 24, activation="silu", gated=True)
    layer = plus_plus(bank, two_layer=two_layer, spread=spread, compat="published")
    names = {
        "groups.0.inner": stacked(given, "experts.experts.{}.up_proj.weight", range(4)),
        "groups.0.outer": stacked(given, "experts.experts.{}.down_proj.weight", range(4)),
        "groups.0.index": torch.arange(4),
        "groups.1.constant": stacked(given, "experts.experts.{}.constant", (4, 5)),
        "groups.1.mix": stacked(given, "experts.experts.{}.wg.weight", (4, 5)),
        "router.residual": given["gate.gate_map.weight"],
        "router.first": given["gate.wg.0.weight" if two_layer else "gate.wg.weight"],
    }
    if two_layer:
        names["router.second"] = given["gate.wg.2.weight"]
    layer.load_state_dict(names)
    if mixtral:
        layer.choose, layer.scale = PlusPlusTopK(2), 1
    if spread:
        layer.scale = 1
    return layer


@pytest.mark.parametrize("name", PLUS_PLUS)
def test_moe_plus_plus_is_the_published_one(name):
    depth, two_layer, options = PLUS_PLUS[name]
    given = published(f"moe_plus_plus/{name}")
    layers = [plus_plus_layer(given, n, two_layer, **options) for n in range(depth)]
    stream = given["input"].clone().requires_grad_()
    start, state = stream, State()
    for number, layer in enumerate(layers):
        own = part(given, f"layer{number}.")
        x = F.layer_norm(stream, (16,))
        output, choice, state = layer(x, state)
        assert torch.equal(choice.chosen.flatten(0, 1), own["selected"].bool())
        assert_near(choice.logits.flatten(0, 1).float(), own["logits"], 2e-5)
        assert_near(choice.weights.flatten(0, 1).float(), own["combine"])
        assert (layer.run(own["moe_input"], choice) - own["moe_output"]).abs().max() < 2e-5
        for share in (0.25, 0.75):
            # the published sum counts both of a token's choices and no factor E
            ours = balance(choice, heterogeneous_cost(layer, share)) * 2 / layer.count
            assert_near(ours.float(), own[f"balance_tau{share}"])
        stream = stream + output
    # values to 60; in double precision the published stream is off by 2.3e-5 itself
    assert (stream - given["output"]).abs().max() < 3e-5
    loss = stream.square().mean()
    near(loss, given["loss"])
    loss.backward()
    assert_near(start.grad, given["grad.input"], 1e-4)
    for number, layer in enumerate(layers):
        own = part(given, f"layer{number}.grad.moe.")
        bank = layer.groups[0]
        inner = stacked(own, "experts.experts.{}.up_proj.weight", range(4))
        outer = stacked(own, "experts.experts.{}.down_proj.weight", range(4))
        near(bank.inner.grad, inner)
        near(bank.outer.grad, outer)
        near(layer.groups[1].constant.grad, stacked(own, "experts.experts.{}.constant", (4, 5)))
        near(layer.groups[1].mix.grad, stacked(own, "experts.experts.{}.wg.weight", (4, 5)))
        name = "gate.wg.0.weight" if two_layer else "gate.wg.weight"
        near(layer.router.first.grad, own[name])
        if number:
            near(layer.router.residual.grad, own["gate.gate_map.weight"])


def near(ours, theirs):
    """Gradients, relative to the largest."""
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-9


def dropout_layer(given):
    bank = Bank(16, 16, 12, activation="gelu", bias=True)
    layer = ExpertLayer(RandomRouter(16, 16), TopK(2), [bank])
    layer.load_state_dict(
        {
            "router.weight": given["gate.weight"],
            "router.bias": given["gate.bias"],
            "groups.0.inner": given["w1"],
            "groups.0.outer": given["w2"],
            "groups.0.inner_bias": given["b1"],
            "groups.0.outer_bias": given["b2"],
            "groups.0.index": torch.arange(16),
        }
    )
    return layer


@pytest.mark.parametrize("k", [2, 4, 8, 16])
def test_a_fixed_random_router_is_the_published_one_at_every_k(k):
    given = published("smoe_dropout/layer")
    layer = dropout_layer(given)
    assert set_experts_per_token(layer, k) == 1
    x = given["input"].clone().requires_grad_()
    output, choice, _ = layer(x)
    assert_near(choice.logits, given["logits"])
    assert_near(choice.weights, given[f"k{k}.weights"])
    assert_near(output, given[f"k{k}.output"])
    if f"k{k}.grad.input" in given:
        output.backward(given["grad_output"])
        own = part(given, f"k{k}.grad.")
        bank = layer.groups[0]
        for ours, name in (
            (x.grad, "input"),
            (bank.inner.grad, "w1"),
            (bank.outer.grad, "w2"),
            (bank.inner_bias.grad, "b1"),
            (bank.outer_bias.grad, "b2"),
        ):
            assert_near(ours, own[name])


@pytest.mark.parametrize(
    ("name", "first", "last", "form"),
    [
        ("linear_increase", 2, 16, "linear"),
        ("linear_decrease", 16, 2, "linear"),
        ("linear_half_to_full", 8, 16, "linear"),
        ("cosine_increase", 2, 16, "cosine"),
        ("cosine_decrease", 16, 2, "cosine"),
        ("exp_increase", 2, 16, "exponential"),
    ],
)
def test_experts_per_token_grow_as_published(name, first, last, form):
    theirs = published("smoe_dropout/layer")[f"schedule.{name}"].tolist()
    assert [scheduled_k(s, 1000, first, last, form) for s in range(1000)] == theirs


def test_the_balance_loss_of_the_trained_variant_is_the_usual_one():
    given = published("smoe_dropout/layer")
    k = int(given["balance_loss_topk.k"])
    choice = TopK(k)(given["logits"])
    # theirs divides the mean probability by k once more
    assert_near(balance(choice) / k, given["balance_loss_topk"].double())


RECURRENT = {"gru_three_layers": (3, "gru"), "rnn_two_layers_bias": (2, "rnn")}


def cell_weights(given, kind):
    """Names of torch's cells from those of the published ones."""
    gates = ("r", "z", "n") if kind == "gru" else ("n",)
    return {
        f"{what}_{side}h": torch.cat([given[f"{what}_{side}{gate}"] for gate in gates])
        for what in ("weight", "bias")
        for side in ("i", "h")
        if f"{what}_{side}{gates[0]}" in given
    }


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_router_is_the_published_one(name):
    depth, kind = RECURRENT[name]
    given = published(f"rmoe/{name}")
    layers = []
    cell = None
    for number in range(depth):
        own = part(given, f"layer{number}.sd.")
        router = RecurrentRouter(16, 6, 8, cell=cell, kind=kind)
        cell = router.shared_cell
        router.project.data, router.score.data = own["weight1"], own["weight2"]
        bank = Bank(6, 16, 20, activation="silu", gated=True)
        halves = [stacked(own, f"experts.{{}}.{w}.weight", range(6)) for w in ("w1", "w3")]
        bank.inner.data = torch.cat(halves, dim=1)
        bank.outer.data = stacked(own, "experts.{}.w2.weight", range(6))
        layers.append(ExpertLayer(router, TopK(2), [bank]))
        if "bias" in own:
            layers[-1].shared = nn.Linear(16, 16)
            layers[-1].shared.load_state_dict({"weight": torch.zeros(16, 16), "bias": own["bias"]})
    cell.load_state_dict(cell_weights(part(given, "rnn.sd."), kind))
    stream = given["input"].clone().requires_grad_()
    start, state, choices = stream, State(), []
    for number, layer in enumerate(layers):
        own = part(given, f"layer{number}.")
        output, choice, state = layer(F.layer_norm(stream, (16,)), state)
        choices.append(choice)
        assert_near(choice.logits.flatten(0, 1).float(), own["router_logits"])
        assert_near(state.memory.flatten(0, 1), own["router_state"])
        assert_near(choice.weights.flatten(0, 1).float(), own["combine"])
        assert_near(output, own["moe_output"])
        stream = stream + output
    assert_near(stream, given["output"])
    both = Choice(*(torch.cat([c[i] for c in choices]) for i in range(3)))
    auxiliary = balance(both) * 2  # theirs counts both of a token's choices
    assert_near(auxiliary.float(), given["aux_loss"])
    (stream.square().mean() + 0.01 * auxiliary).backward()
    near(start.grad, given["grad.input"])
    for name, theirs in cell_weights(part(given, "rnn.grad."), kind).items():
        near(getattr(cell, name).grad, theirs)
    for number, layer in enumerate(layers):
        own = part(given, f"layer{number}.grad.")
        near(layer.router.project.grad, own["weight1"])
        near(layer.router.score.grad, own["weight2"])

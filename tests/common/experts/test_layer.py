# SPDX-License-Identifier: Apache-2.0
"""Properties of an expert layer that hold whatever its router."""

import pytest
import torch
from torch import nn

from fieldfare.common.efficiency import cost
from fieldfare.common.experts import (
    Bank,
    Constant,
    Copy,
    ExpertLayer,
    LinearRouter,
    LookupRouter,
    State,
    TopK,
    Zero,
    set_experts_per_token,
)
from fieldfare.common.experts.merge import merge
from fieldfare.common.experts.plusplus import plus_plus
from fieldfare.common.experts.recipes import KINDS, build
from fieldfare.common.experts.recycle import join, split

FORMS = [
    (False, False, "relu"),
    (False, True, "gelu"),
    (True, False, "silu"),
    (True, True, "gelu_tanh"),
]


def dense_bank(gated=False, bias=False, activation="relu", hidden=24):
    return Bank(1, 8, hidden, activation=activation, gated=gated, bias=bias)


def given(x):
    """What routers of all kinds may ask for."""
    return State(keys=torch.arange(len(x)) * 7 + 3, classes=torch.arange(len(x)) % 4)


def built(kind, dense=None, **options):
    """A layer of four experts, in evaluation."""
    dense = dense_bank(True) if dense is None else dense
    return build(kind, dense, experts=4, number=1, **options).eval()


@pytest.mark.parametrize(("gated", "bias", "activation"), FORMS)
def test_all_experts_of_a_cut_layer_are_the_layer(gated, bias, activation):
    dense = dense_bank(gated, bias, activation)
    x = torch.randn(5, 7, 8)
    whole = dense.always(x.flatten(0, 1)).view_as(x)
    for order in (None, torch.randperm(24)):
        cut = split(dense, 4, order)
        layer = ExpertLayer(LinearRouter(8, 4), TopK(4, "one"), [cut])
        assert (layer(x).output - whole).abs().max() < 1e-6
        assert (join(cut).always(x.flatten(0, 1)).view_as(x) - whole).abs().max() < 1e-6
    if not bias:
        assert torch.equal(join(split(dense, 4)).inner, dense.inner)
        assert torch.equal(join(split(dense, 4)).outer, dense.outer)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("kind", ["learned", "random", "recurrent", "stochastic", "lookup"])
def test_copies_of_a_layer_are_the_layer_whatever_is_chosen(kind, k):
    dense = dense_bank(True, True, "silu")
    x = torch.randn(5, 7, 8)
    layer = built(kind, dense, start="copies", k=k)
    output = layer(x, given(x)).output
    assert (output - dense.always(x.flatten(0, 1)).view_as(x)).abs().max() < 1e-6


@pytest.mark.parametrize(("gated", "bias", "activation"), FORMS)
def test_one_product_for_all_experts_gives_what_dispatch_gives(gated, bias, activation):
    bank = Bank(4, 8, 6, activation=activation, gated=gated, bias=bias)
    layer = ExpertLayer(LinearRouter(8, 4), TopK(4), [bank])
    x = torch.randn(3, 7, 8)
    cotangent = torch.randn(3, 7, 8)
    found = []
    for dense in (True, False):
        layer.dense = dense
        layer.zero_grad()
        own = x.clone().requires_grad_()
        output = layer(own).output
        output.backward(cotangent)
        found.append([output, own.grad, *(p.grad.clone() for p in layer.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_alone_is_what_it_is_in_a_batch(kind):
    layer, x = built(kind), torch.randn(6, 9, 8)
    state = given(x)
    output, choice, _ = layer(x, state)
    order = torch.randperm(6)
    shuffled = State(keys=state.keys[order], classes=state.classes[order])
    assert (layer(x[order], shuffled).output - output[order]).abs().max() < 1e-6
    for number in range(6):
        rows = slice(number, number + 1)
        alone = layer(x[rows], State(keys=state.keys[rows], classes=state.classes[rows]))
        assert torch.equal(alone.choice.chosen, choice.chosen[rows])
        assert (alone.output - output[rows]).abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_padding_costs_nothing_and_changes_nothing(kind):
    layer, x = built(kind), torch.randn(4, 9, 8)
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[:, 6:] = False
    state = given(x)
    masked = layer(x, State(keys=state.keys, classes=state.classes, mask=mask))
    short = layer(x[:, :6], state)
    assert torch.equal(masked.choice.chosen[:, :6], short.choice.chosen)
    assert (masked.output[:, :6] - short.output).abs().max() < 1e-6
    assert not masked.output[:, 6:].any()
    assert layer.macs(masked.choice) == layer.macs(short.choice)
    nothing = State(keys=state.keys, classes=state.classes, mask=torch.zeros_like(mask))
    assert not layer(x, nothing).output.any()


@pytest.mark.parametrize("kind", ["learned", "recurrent", "switch", "union", "moe++"])
@pytest.mark.parametrize("start", ["split", "copies", "fresh"])
def test_every_learnt_router_learns(kind, start):
    layer = built(kind, start=start).train()
    layer(torch.randn(4, 9, 8)).output.square().sum().backward()
    for name, parameter in layer.router.named_parameters():
        if name != "residual":  # has no layer before it
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0 or kind == "recurrent", name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_gives_what_runs(kind, monkeypatch):
    layer, x = built(kind), torch.randn(4, 9, 8)
    output = layer(x, given(x)).output
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    exported, choice, _ = layer(x, given(x))
    assert torch.equal(choice.chosen, layer(x, given(x)).choice.chosen)
    assert (exported - output).abs().max() < 1e-6


def test_a_fixed_router_is_the_same_after_training():
    layer = built("random").train()
    before = [value.clone() for value in layer.router.state_dict().values()]
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 9, 8)).output.square().sum().backward()
    optimiser.step()
    assert all(map(torch.equal, before, layer.router.state_dict().values()))
    assert not list(layer.router.parameters())


def test_what_is_counted_is_what_runs():
    x = torch.randn(3, 8, 8)
    router = 3 * 8 * 4 * 8
    for k in (1, 2, 3, 4):
        layer = built("learned", k=k)
        counted = cost(layer, x).macs
        assert counted - router == layer.macs(layer(x).choice) == 3 * 8 * k * 3 * 8 * 6
    layer = plus_plus(Bank(4, 8, 6, gated=True), k=2).eval()
    choice = layer(x).choice
    ran = int(choice.chosen[..., :4].sum())
    assert layer.macs(choice) == ran * 3 * 8 * 6 < 3 * 8 * 2 * 3 * 8 * 6
    constants = int(choice.chosen[..., 4:6].sum()) * 2 * 8
    assert cost(layer, x).macs == layer.macs(choice) + constants + 3 * 8 * (8 * 64 + 64 * 8)


def test_a_token_that_chose_two_experts_of_one_matrix_runs_it_once():
    bank = Bank(4, 8, 6)
    labels = torch.tensor([0, 0, 1, 1])
    merged = merge(bank, labels, torch.ones(4) / 4)
    layer = ExpertLayer(LinearRouter(8, 4), TopK(2), [merged])
    x = torch.randn(50, 8)
    output, choice, _ = layer(x)
    apart = ((choice.chosen[:, :2].any(dim=1)) & (choice.chosen[:, 2:].any(dim=1))).sum()
    assert layer.macs(choice) == (50 + int(apart)) * 2 * 8 * 6
    assert cost(layer, x).macs == layer.macs(choice) + 50 * 4 * 8
    own = [merged.run(x, merged.fetch(int(labels[e]))) for e in range(4)]
    expected = sum(choice.weights[:, e, None].float() * own[e] for e in range(4))
    assert (output - expected).abs().max() < 1e-6


def test_experts_without_products():
    layer = ExpertLayer(LookupRouter(3), TopK(1), [Copy(), Zero(), Constant(1, 8)], scale=2.0)
    x = torch.randn(3, 4, 8)
    output = layer(x, State(classes=torch.tensor([0, 1, 2]))).output
    assert torch.equal(output[0], 2 * x[0])
    assert not output[1].any()
    constant = layer.groups[2]
    mix = (2 * x[2] @ constant.mix[0].T).softmax(dim=-1)
    expected = mix[:, :1] * 2 * x[2] + mix[:, 1:] * constant.constant[0]
    assert (output[2] - expected).abs().max() < 1e-6


def test_published_moe_plus_plus_gives_the_other_expert_all_where_zero_is_second():
    bank = Bank(1, 8, 6)
    x = torch.randn(1, 8)
    for compat in ("published", None):
        layer = plus_plus(bank, constants=1, compat=compat)
        logits = torch.tensor([[1.0, -9, -9, 0.5]])
        choice = layer.choose(logits)
        assert choice.chosen.tolist() == [[True, False, False, True]]
        share = 1.0 if compat else float(torch.tensor([1.0, 0.5]).softmax(dim=0)[0])
        assert float(choice.weights[0, 0]) == pytest.approx(share)
        alone = bank.always(layer.scale * x) * share
        assert (layer.run(x, choice) - alone).abs().max() < 1e-6


def test_the_dial():
    model = nn.ModuleList([built("learned"), built("switch"), built("random")])
    assert set_experts_per_token(model, 3) == 3
    x = torch.randn(2, 5, 8)
    assert bool((model[0](x).choice.per_token() == 3).all())
    with pytest.raises(ValueError, match="at least 1"):
        set_experts_per_token(model, 0)
    with pytest.raises(ValueError, match="no number of experts"):
        set_experts_per_token(built("union"), 2)


def test_wrong_layers_are_refused():
    with pytest.raises(ValueError, match="the router has 3 experts, not 4"):
        ExpertLayer(LinearRouter(8, 3), TopK(1), [Bank(4, 8, 6)])
    with pytest.raises(ValueError, match="experts must be one of"):
        build("nonsense", dense_bank())
    with pytest.raises(ValueError, match="cannot be cut into 5"):
        split(dense_bank(), 5)
    with pytest.raises(ValueError, match="not of 4"):
        split(Bank(4, 8, 6), 2)
    with pytest.raises(ValueError, match="activation must be"):
        Bank(1, 8, 6, activation="tanh")
    with pytest.raises(ValueError, match="`classes`"):
        built("lookup")(torch.randn(2, 5, 8))
    with pytest.raises(ValueError, match="`keys`"):
        built("stochastic")(torch.randn(2, 5, 8))
    with pytest.raises(ValueError, match="do not fit"):
        built("lookup")(torch.randn(3, 5, 8), State(classes=torch.zeros(2).long()))


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_trains(kind):
    layer, x = built(kind).train(), torch.randn(4, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output = x.requires_grad_() + layer(x, given(x)).output
    output.float().sum().backward()
    assert bool(output.isfinite().all())

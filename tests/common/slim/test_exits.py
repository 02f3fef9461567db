# SPDX-License-Identifier: Apache-2.0
"""JEI-DNN: the published losses, gradients and exits; counted costs; training on easy samples."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from fieldfare.common.efficiency import cost
from fieldfare.common.slim import exits
from fieldfare.common.slim.anchors import SequentialAnchor
from fieldfare.common.slim.exit_net import GATED, ExitNet
from fieldfare.common.slim.exit_training import Samples, fit_exits

REFERENCE = Path(__file__).parents[2] / "reference" / "jei_dnn"
CONFIG = json.loads((REFERENCE / "expected.json").read_text())
COSTS = torch.tensor([*CONFIG["normalized_cost_per_exit"], 1.0])


@pytest.fixture(scope="module")
def given():
    return load_file(REFERENCE / "expected.safetensors")


@pytest.fixture
def layers():
    """The published heads (the final one last) and gates."""
    state = load_file(REFERENCE / "state_dict.safetensors")
    heads = [nn.Linear(12, 6) for _ in range(5)]
    gates = [nn.Linear(4, 1) for _ in range(4)]
    for i in range(4):
        heads[i].load_state_dict(
            {k: state[f"intermediate_heads.{i}.{k}"] for k in ("weight", "bias")}
        )
        gates[i].load_state_dict({k: state[f"gates.{i}.linear.{k}"] for k in ("weight", "bias")})
    heads[4].load_state_dict({k: state[f"head.{k}"] for k in ("weight", "bias")})
    return heads, gates


def run(given, layers):
    heads, gates = layers
    logits = [head(given["features"][:, i]) for i, head in enumerate(heads)]
    own = [gate(exits.gate_inputs(x)) for gate, x in zip(gates, logits[:4], strict=True)]
    losses = [F.cross_entropy(x, given["targets"], reduction="none") for x in logits]
    return logits, torch.cat(own, dim=1), torch.stack(losses, dim=1)


def test_what_gates_see_and_say_is_as_published(given, layers):
    logits, gates, _ = run(given, layers)
    near = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(exits.gate_inputs(logits[0]), given["gate_inputs.0"], **near)
    for i in range(4):
        torch.testing.assert_close(logits[i], given[f"head_logits.{i}"], **near)
        torch.testing.assert_close(gates[:, i : i + 1], given[f"gate_logits.{i}"], **near)
    shares = exits.exit_probabilities(gates.sigmoid())
    torch.testing.assert_close(shares, given["classifier.weighted.p_exit"], **near)
    assert (shares >= 0).all()
    assert (shares.sum(1) <= 1 + 1e-6).all()


def test_exits_are_the_published_ones(given, layers):
    logits, gates, _ = run(given, layers)
    found = exits.exit_of(gates.sigmoid())
    for kind in ("single", "weighted"):
        assert torch.equal(found, given[f"classifier.{kind}.exit_level"])
        counts = torch.bincount(found, minlength=5)
        assert torch.equal(counts, given[f"classifier.{kind}.exits_per_gate"])
    gated = torch.stack(logits, 1)[torch.arange(64), found]
    torch.testing.assert_close(gated, given["classifier.single.gated_logits"])
    single = F.cross_entropy(gated, given["targets"])
    torch.testing.assert_close(single, given["classifier.single.loss"])


def test_the_loss_of_the_heads_and_its_gradients_are_the_published_ones(given, layers):
    heads, gate_layers = layers
    _, gates, losses = run(given, layers)
    loss = exits.heads_loss(losses[:, :4], exits.exit_probabilities(gates.sigmoid()))
    torch.testing.assert_close(loss, given["classifier.weighted.loss"], rtol=1e-5, atol=0)
    loss.backward()
    for i in range(4):
        expected = given[f"classifier.weighted.grad.head{i}.weight"]
        torch.testing.assert_close(heads[i].weight.grad, expected, rtol=1e-5, atol=1e-6)
    assert not heads[4].weight.grad.any()
    assert all(gate.weight.grad is None for gate in gate_layers)


@pytest.mark.parametrize("kind", ["ce.unit", "ce.weighted", "prob.unit", "prob.weighted"])
def test_the_loss_of_the_gates_and_its_gradients_are_the_published_ones(given, layers, kind):
    heads, gate_layers = layers
    logits, gates, losses = run(given, layers)
    if kind.startswith("prob"):
        each = [exits.probability_loss(x, given["targets"]) for x in logits]
        losses = torch.stack(each, dim=1)
    best = exits.best_exit(losses, COSTS, CONFIG["ce_ic_tradeoff"])
    expected = CONFIG[f"gate.{kind}"]
    assert torch.bincount(best, minlength=5)[:4].tolist() == list(
        expected["exit_count_optimal_gate"].values()
    )
    right = (gates >= 0) == (torch.arange(4) >= best[:, None])
    assert int(right.sum()) == expected["correct_gate_decisions"]
    weights = torch.tensor(CONFIG["pos_weights"]) if "weighted" in kind else None
    loss = exits.gates_loss(gates, best, weights)
    torch.testing.assert_close(loss.double(), given[f"gate.{kind}.loss"], rtol=1e-5, atol=0)
    loss.backward()
    for i, gate in enumerate(gate_layers):
        for name in ("weight", "bias"):
            published = given[f"gate.{kind}.grad.gate{i}.{name}"]
            torch.testing.assert_close(getattr(gate, name).grad, published, rtol=1e-5, atol=1e-6)
    assert all(head.weight.grad is None for head in heads)


def test_warmup_and_conformal_sets_are_the_published_ones(given, layers):
    logits, _, losses = run(given, layers)
    torch.testing.assert_close(exits.warmup_loss(losses), given["warmup.loss_by_formula"])
    for alpha, threshold in CONFIG["conformal"].items():
        own = exits.conformal_threshold(given["conformal.scores"], float(alpha))
        assert own == pytest.approx(threshold, rel=1e-6)
    sets = 1 - logits[0].softmax(-1) <= CONFIG["conformal"]["0.05"]
    assert torch.equal(sets, given["conformal.sets_at_0.05"])


def test_a_used_up_exit_takes_nothing():
    gates = torch.tensor([[1.0, 0.7, 0.9], [0.4, 0.6, 0.3], [0.4, 0.2, 0.3], [0.1, 0.2, 0.1]])
    shares = exits.exit_probabilities(gates)
    assert shares[0].tolist() == [1, 0, 0]
    assert exits.exit_of(gates).tolist() == [0, 1, 2, 3]
    assert not exits.exit_probabilities(gates).isnan().any()


def test_trade_at_both_ends():
    losses = torch.rand(50, 4)
    costs = torch.tensor([0.2, 0.5, 0.8, 1.0])
    assert torch.equal(exits.best_exit(losses, costs, 0), losses.argmin(1))
    assert (exits.best_exit(losses, costs, 1e6) == 0).all()
    weights = exits.positive_weights(torch.tensor([0, 0, 1, 3]), 3)
    assert weights.tolist() == [1.0, 3.0, 5.0]


def network(classes: int = 3) -> ExitNet:
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()) for _ in range(4)]
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
    return ExitNet(SequentialAnchor(nn.Conv2d(1, 4, 1), blocks, end), (0, 2), 4, classes)


def test_gated_answers_are_those_of_the_exits_and_cost_what_is_counted():
    net = network()
    x = torch.randn(40, 1, 6, 6) * torch.logspace(-1, 1, 40)[:, None, None, None]
    with torch.no_grad():  # gates that let out every second sample
        for number, gate in enumerate(net.gates):
            sure = net.head_logits(net.features(x)[0])[:, number].softmax(-1).amax(-1)
            gate.weight.copy_(torch.tensor([[1000.0, 0, 0, 0]]))
            gate.bias.fill_(-1000 * float(sure.quantile(0.6 - 0.2 * number)))
    answers = net.answer(x)
    counts = torch.bincount(answers.exits, minlength=3)
    assert (counts > 0).all()
    for number in range(3):
        net.set({"exit": number})
        with torch.no_grad():
            own = net(x)
        here = answers.exits == number
        torch.testing.assert_close(answers.logits[here], own[here], rtol=1e-5, atol=1e-6)
    features, _ = net.features(x)
    logits = net.head_logits(features)
    assert torch.equal(answers.exits, exits.exit_of(net.gate_logits(logits).sigmoid()))
    torch.testing.assert_close(net.shares(logits).sum(1), torch.ones(40))
    net.set({"exit": GATED})
    assert torch.equal(net(x), answers.logits)

    conv, head = 36 * 4 * 4 * 9, 4 * 3
    by_hand = [36 * 4 + conv + head + 4, 36 * 4 + 3 * conv + 2 * (head + 4)]
    by_hand.append(36 * 4 + 4 * conv + 2 * (head + 4) + head)
    assert net.costs(1, 6, 6) == by_hand
    expected = sum(by_hand[int(number)] for number in answers.exits) / 40
    assert answers.cost(net.costs(1, 6, 6)) == pytest.approx(expected)
    net.set({"exit": 2})
    assert cost(net, (1, 1, 6, 6)).macs == by_hand[2] - 2 * (head + 4)


def test_only_heads_and_gates_train_and_easy_samples_leave_early():
    net = network(2)
    before = {name: p.clone() for name, p in net.anchor.state_dict().items()}
    x = torch.randn(600, 1, 6, 6)
    y = torch.arange(600) % 2
    x += 2.0 * (2 * y - 1)[:, None, None, None]
    samples = Samples(*net.train().features(x), y)
    first, second = samples.part(torch.arange(400)), samples.part(torch.arange(400, 600))
    fit_exits(net, first, second, (0.3, 0.8, 1.0), 1.0, epochs=12, phase=3, rate=0.1)
    assert not net.anchor.training
    assert all(torch.equal(before[n], p) for n, p in net.anchor.state_dict().items())
    answers = net.answer(x[400:])
    assert (answers.logits.argmax(1) == y[400:]).float().mean() > 0.95
    assert answers.cost((0.3, 0.8, 1.0)) < 0.5
    state = net.state_dict()
    again = network(2)
    again.load_state_dict(state)
    assert torch.equal(again.answer(x[400:]).exits, answers.exits)


def test_exits_must_stand_in_order():
    anchor = network().anchor
    for at in ((), (1, 0), (0, 0), (3,), (-1,)):
        with pytest.raises(ValueError, match="must ascend within 0 to 2"):
            ExitNet(anchor, at, 4, 3)
    with pytest.raises(ValueError, match="gene exit: 9 is none of"):
        network().set({"exit": 9})

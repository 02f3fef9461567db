# SPDX-License-Identifier: Apache-2.0
"""ProxylessNAS's gates: the authors' gradients, and the rules around them."""

import json

import pytest
import torch
from published_search import REFERENCE, near, tensors
from torch import nn

from fieldfare.common.search.gates import Gated, total_loss

FILES = REFERENCE / "proxyless_gates"
RUNS = json.loads((FILES / "expected.json").read_text())["runs"]


def edge(found: dict[str, torch.Tensor]) -> Gated:
    gated = Gated([nn.Identity() for _ in range(5)], found["latency"].tolist())
    gated.logits.data.copy_(found["alpha"])
    return gated


@pytest.mark.parametrize("run", RUNS)
def test_gradients_of_gates_and_logits_are_the_published_ones(run: str) -> None:
    found, told = tensors(FILES / "expected.safetensors"), RUNS[run]
    gated = edge(found)
    two = run.startswith("two")
    gated.set(torch.tensor(told["active"] + told["inactive"] * two))
    outputs = [found[f"op_output.{index}"] for index in gated.competing()]
    output = gated.with_gates(outputs)
    task = (output - found["target"]).square().mean()
    latency = gated.expected_latency()
    assert task.item() == pytest.approx(told["loss"], rel=1e-5)
    assert latency.item() == pytest.approx(told["expected_latency"], rel=1e-5)
    loss = total_loss(task, latency, 4.0)
    assert loss.item() == pytest.approx(told["total"], rel=1e-5)
    loss.backward()
    assert gated.logits.grad is not None
    assert gated._gates is not None
    places = gated.competing()
    near(gated._gates.grad, found[f"{run}.gate_grad"][places], 1e-5)
    if told["alpha_grad_dropped"]:
        return  # the published code loses it where the zero operation runs; ours keeps it
    near(gated.logits.grad, found[f"{run}.alpha_grad_from_latency"], 1e-5)
    gated.add_gate_gradient()
    near(gated.logits.grad, found[f"{run}.alpha_grad"], 1e-5)
    before = gated.logits.detach().clone()
    torch.optim.Adam([gated.logits], lr=0.1, betas=(0.0, 0.999)).step()
    near(gated.logits, found[f"{run}.alpha_after_adam"], 1e-5)
    if two:
        others = [index for index in range(5) if index not in places]
        chances = before.softmax(0)[others]
        gated.rescale(before)
        near(gated.logits, found[f"{run}.alpha_after_rescale"], 1e-5)
        near(gated.logits.softmax(0)[others], chances, 1e-6)


def test_probabilities_are_the_softmax() -> None:
    found = tensors(FILES / "expected.safetensors")
    near(edge(found).logits.softmax(0), found["probabilities"], 1e-6)


def test_only_the_active_candidate_runs_and_learns() -> None:
    torch.manual_seed(0)
    gated = Gated([nn.Linear(3, 3), nn.Linear(3, 3)], [1.0, 2.0])
    gated.set(torch.tensor([1]))
    gated(torch.ones(2, 3)).sum().backward()
    assert gated.candidates[0].weight.grad is None
    assert gated.candidates[1].weight.grad is not None
    assert gated.logits.grad is None


def test_draws_follow_the_probabilities() -> None:
    gated = Gated([nn.Identity()] * 3, [1.0, 1.0, 1.0])
    gated.logits.data = torch.tensor([0.7, 0.2, 0.1]).log()
    generator = torch.Generator().manual_seed(0)
    first = [int(gated.draw(generator)[0]) for _ in range(3000)]
    shares = torch.bincount(torch.tensor(first)) / len(first)
    near(shares, torch.tensor([0.7, 0.2, 0.1]), 0.03)
    active, other = gated.draw(generator, two=True).tolist()
    assert active != other


def test_the_logits_move_to_the_better_candidate() -> None:
    torch.manual_seed(0)
    good, bad = torch.ones(4), -torch.ones(4)
    gated = Gated([nn.Identity(), nn.Identity()], [1.0, 1.0], start=0.0)
    optimiser = torch.optim.Adam([gated.logits], lr=0.05, betas=(0.0, 0.999))
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        gated.draw(generator)
        optimiser.zero_grad()
        (gated.with_gates([good, bad]) - good).square().mean().backward()
        gated.add_gate_gradient()
        optimiser.step()
    assert gated.best() == 0
    assert gated.logits.softmax(0)[0].item() > 0.8


def test_needs_candidates_and_their_latency() -> None:
    with pytest.raises(ValueError, match="two candidates"):
        Gated([nn.Identity()], [1.0])
    gated = Gated([nn.Identity()] * 2, [1.0, 1.0])
    with pytest.raises(RuntimeError, match="draw first"):
        gated.competing()

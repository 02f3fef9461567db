# SPDX-License-Identifier: Apache-2.0
"""AdvMoE: a whole step of the published training, both halves, on a small network."""

import math

import pytest
import torch
from published_blocks import assert_near, part, published
from torch import nn
from torch.nn import functional as F

from fieldfare.common.experts.adversarial import Answer, Attack, evade, only, robust_loss
from fieldfare.common.experts.conv import ExpertConv, InputRouter, one_hot

ATTACK = Attack(epsilon=8 / 255, step=5 / 255, steps=2)


class Block(nn.Module):
    """Two expert convolutions and a shortcut without experts."""

    def __init__(self, inputs: int, outputs: int, stride: int, count: int = 2) -> None:
        super().__init__()
        self.conv1 = ExpertConv(2, inputs, outputs, count, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = ExpertConv(2, outputs, outputs, count, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            short = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(short, nn.BatchNorm2d(outputs))

    def forward(self, x, gate):
        y = F.relu(self.bn1(self.conv1(x, gate)))
        return F.relu(self.bn2(self.conv2(y, gate)) + self.shortcut(x))


class Network(nn.Module):
    """The published fixture's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.b1, self.b2 = Block(6, 6, 1), Block(6, 12, 2)
        self.linear = nn.Linear(12, 5)

    def forward(self, x, gate):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.b2(self.b1(x, gate), gate)
        return self.linear(x.mean(dim=(2, 3)))


@pytest.fixture
def given():
    return published("advmoe/two_stage")


@pytest.fixture
def pair(given):
    network, router = Network(), InputRouter(2, 3, 2, width=4, blocks=1)
    network.load_state_dict(part(given, "model.sd."))
    router.load_state_dict(part(given, "router.sd."))
    return network.eval(), router.eval()


def near(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-8


def test_the_whole_published_step(given, pair):
    network, router = pair
    images, labels = given["images"], given["labels"]
    scores = router(images)
    assert_near(scores, given["eval.scores"])
    assert torch.equal(scores.argmax(dim=1), given["eval.choice"])
    assert_near(network(images, scores.argmax(dim=1)), given["eval.logits"])

    def run(x):
        scores = router(x)
        return Answer(network(x, one_hot(scores)), scores)

    network.train(), router.train()
    clean = router(images)  # its graph serves the router's half-step
    assert_near(clean, given["train.scores"])
    with torch.no_grad():
        run(images)  # moves the running statistics once more, as published

    def attacked(noise):
        network.eval(), router.eval()
        with torch.no_grad():
            reference = Answer(run(images).logits, clean)
        moved, losses = evade(run, images, reference, ATTACK, noise=noise)
        network.train(), router.train()
        return moved, losses

    moved, losses = attacked(given["attack.noise"])
    assert losses == pytest.approx(given["attack.loss_trace"].tolist(), abs=1e-5)
    # one value of 4,608 has a gradient of 2e-7, the median 7e-5
    assert ((moved - given["attack.x_adv"]).abs() > 1e-6).sum() <= 1
    moved = given["attack.x_adv"]

    gate = one_hot(router(images)).detach()
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    with only(network.parameters(), router.parameters()):
        natural = network(images, gate)
        loss = robust_loss(natural, network(moved, one_hot(router(moved)).detach()), labels)
        loss.backward()
    assert_near(loss, given["expert.loss"])
    for name, theirs in part(given, "expert.grad.").items():
        near(network.get_parameter(name).grad, theirs)
    assert all(p.grad is None for p in router.parameters())
    optimiser.step()
    for name, theirs in part(given, "after_expert.").items():
        assert_near(network.get_parameter(name), theirs)

    again = router(given["attack2.x_adv"])
    assert_near(again, given["router.adv_scores"])
    loss = robust_loss(clean, again, labels % 2, natural=6)
    assert_near(loss, given["router.loss"])
    before = [p.clone() for p in network.parameters()]
    loss.backward()
    for name, theirs in part(given, "router.grad.").items():
        near(router.get_parameter(name).grad, theirs)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_the_gradient_of_a_choice_goes_to_the_scores_unchanged(given):
    scores = given["eval.scores"].clone().requires_grad_()
    hard = one_hot(scores)
    assert torch.equal(hard.detach().argmax(dim=1), given["eval.choice"])
    hard.backward(given["ste.upstream"])
    assert torch.equal(scores.grad, given["ste.grad_scores"])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_picking_weights_gives_what_masking_outputs_gives(ndim):
    conv = ExpertConv(ndim, 3, 4, 5, stride=2, padding=1)
    x = torch.randn(7, 3, *[8] * ndim)
    expert = torch.randint(5, (7,))
    masked = conv(x, F.one_hot(expert, 5).float())
    assert (conv(x, expert) - masked).abs().max() < 1e-6
    alone = torch.cat([conv(x[i : i + 1], expert[i : i + 1]) for i in range(7)])
    assert (alone - masked).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("experts", "share", "parameters"),
    [(2, 0.5, 5_565_450), (2, 1.0, 22_159_434), (5, 0.2, 2_211_346)],
)
def test_resnet18_with_experts_has_as_many_parameters_as_published(experts, share, parameters):
    """The stem has no experts and all 64 channels; the blocks have a share of theirs."""
    widths = [int(channels * share) for channels in (64, 128, 256, 512)]
    parts = [nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64), nn.Linear(widths[-1], 10)]
    before = 64
    for stage, width in enumerate(widths):
        for number in range(2):
            stride = 2 if stage and not number else 1
            parts.append(Block(before, width, stride, experts))
            before = width
    assert sum(p.numel() for part in parts for p in part.parameters()) == parameters


def test_the_published_router_has_269_202_parameters():
    assert sum(p.numel() for p in InputRouter(2, 3, 2).parameters()) == 269_202


def test_an_evader_changes_only_what_he_may():
    inputs = torch.rand(4, 10)
    weight = torch.randn(10, 3)
    free = torch.zeros(10, dtype=torch.bool)
    free[[2, 7]] = True

    def run(x):
        return Answer(x @ weight, x @ weight)

    attack = Attack(epsilon=0.3, step=0.1, steps=5)
    moved, losses = evade(run, inputs, run(inputs), attack, free=free)
    assert torch.equal(moved[:, ~free], inputs[:, ~free])
    assert (moved[:, free] - inputs[:, free]).abs().max() <= 0.3 + 1e-6
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert losses[-1] > losses[0]
    assert math.isfinite(losses[-1])

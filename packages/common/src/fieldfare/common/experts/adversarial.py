# SPDX-License-Identifier: Apache-2.0
"""Training that holds against small changes of the input: experts and router in turn.

Zhang et al. 2023, AdvMoE (arXiv 2308.10110), on TRADES (Zhang et al. 2019, arXiv 1901.08573). Where
an evader can change only some of the input (padding, TTL, timing), `free` says which.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Answer(NamedTuple):
    """What network and router say: (B, classes) logits and (B, E) scores."""

    logits: Tensor
    scores: Tensor


Run = Callable[[Tensor], Answer]


class Attack(NamedTuple):
    """What the evader may do.

    Attributes:
        epsilon: most change of a value.
        step: of one step.
        steps: how many.
        low, high: range of the values.
        noise: size of the random start, normal.
    """

    epsilon: float
    step: float
    steps: int
    low: float = 0.0
    high: float = 1.0
    noise: float = 0.001


def divergence(from_logits: Tensor, to_logits: Tensor) -> Tensor:
    """KL(softmax(to) || softmax(from)), summed over the batch."""
    likely = from_logits.log_softmax(dim=-1)
    return F.kl_div(likely, to_logits.log_softmax(dim=-1), reduction="sum", log_target=True)


def evade(
    run: Run,
    inputs: Tensor,
    reference: Answer,
    attack: Attack,
    *,
    free: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, list[float]]:
    """Inputs moved so that answer and route leave the reference, by steps of the gradient's sign.

    Args:
        run: of network and router, as in evaluation.
        inputs: (B, ...), real.
        reference: what both say to the clean inputs.
        attack: what may be done.
        free: bool, the inputs' shape or one that spreads to it: values that may be changed.
        noise: the start, inputs' shape; drawn from torch's generator if None.

    Returns:
        The moved inputs, and the loss (divergences of logits and scores) before each step.
    """
    target = Answer(*(value.detach() for value in reference))
    drawn = torch.randn_like(inputs) if noise is None else noise
    allowed = torch.ones_like(inputs) if free is None else free.to(inputs.dtype).expand_as(inputs)
    moved, losses = inputs.detach() + attack.noise * drawn * allowed, []
    for _ in range(attack.steps):
        with torch.enable_grad():
            moved.requires_grad_()
            answer = run(moved)
            loss = divergence(answer.logits, target.logits)
            loss = loss + divergence(answer.scores, target.scores)
            (gradient,) = torch.autograd.grad(loss, moved)
        losses.append(float(loss.detach()))
        moved = moved.detach() + attack.step * gradient.sign() * allowed
        moved = torch.clamp(moved, inputs - attack.epsilon, inputs + attack.epsilon)
        moved = moved.clamp(attack.low, attack.high)
        moved = torch.where(allowed > 0, moved, inputs)
    return moved.detach(), losses


def robust_loss(
    clean: Tensor, moved: Tensor, labels: Tensor, *, natural: float = 1.0, robust: float = 6.0
) -> Tensor:
    """natural CE(clean, labels) + robust KL(clean || moved) / B, of either half-step.

    Args:
        clean, moved: (B, classes) logits of the network, or (B, E) scores of the router.
        labels: (B,) int64; for the router the expert that each input should get: a protocol, a
            sensor. Published is the class modulo E, an arbitrary code.
        natural, robust: weights of the two; 1 and 6 for the network, published 6 and 6 for the
            router.
    """
    distance = divergence(moved, clean) / len(clean)
    return natural * F.cross_entropy(clean, labels) + robust * distance


@contextmanager
def only(trained: Iterable[nn.Parameter], resting: Iterable[nn.Parameter]) -> Iterator[None]:
    """While it lasts the resting side gets no gradient: a half-step moves one side alone."""
    wanted = [(p, p.requires_grad) for side in (trained, resting) for p in side]
    resting_ids = {id(p) for p in resting}
    try:
        for parameter, before in wanted:
            parameter.requires_grad_(before and id(parameter) not in resting_ids)
        yield
    finally:
        for parameter, before in wanted:
            parameter.requires_grad_(before)

# SPDX-License-Identifier: Apache-2.0
"""Heads and gates of a network with exits, learnt in turn on features computed once.

Regol et al. 2024, JEI-DNN (arXiv 2310.09163): first all heads; then, 200 batches at a time, the
gates with the heads fixed and the heads with the gates fixed. The network itself is frozen, so its
features are computed once, and training takes seconds a thousand samples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .exit_net import ExitNet
from .exits import (
    best_exit,
    exit_probabilities,
    gates_loss,
    heads_loss,
    positive_weights,
    warmup_loss,
)


@dataclass(frozen=True)
class Samples:
    """What `ExitNet.features` gave, and the classes.

    Attributes:
        features: (N, G, width).
        final: (N, C), logits of the final head.
        targets: (N,) int64.
    """

    features: Tensor
    final: Tensor
    targets: Tensor

    def part(self, index: Tensor) -> "Samples":
        """Some of them."""
        return Samples(self.features[index], self.final[index], self.targets[index])


def fit_exits(
    net: ExitNet,
    samples: Samples,
    validation: Samples,
    costs: Sequence[float],
    trade: float,
    *,
    epochs: int = 10,
    warmup: int = 6,
    phase: int = 200,
    batch_size: int = 64,
    rate: float = 0.01,
    seed: int = 0,
) -> None:
    """Train the heads and gates.

    Args:
        net: changed in place.
        validation: other samples, for the weights of the gates' classes and the end of the warm-up.
        costs: of each exit as a share of the whole network, the final head last (1).
        trade: loss that one whole network's operations are worth; more sends samples out earlier.
        epochs: of the alternating phases.
        warmup: most epochs of the heads alone; they end when no head's accuracy grew in two.
        phase: batches of each phase; half an epoch where that is less, so both have their turn.
    """
    generator = torch.Generator().manual_seed(seed)
    share = torch.tensor(costs, dtype=torch.float32)
    warm = torch.optim.SGD(net.heads.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    best, stalled = torch.zeros(len(net.at)), 0
    for _ in range(warmup):
        for batch in _batches(samples, batch_size, generator):
            _step(warm, warmup_loss(_losses(net, batch)))
        accuracy = _accuracy(net, validation)
        stalled = 0 if bool((accuracy > best).any()) else stalled + 1
        best = torch.maximum(best, accuracy)
        if stalled == 2:
            break
    optimizer = torch.optim.SGD(
        [*net.heads.parameters(), *net.gates.parameters()], rate, momentum=0.9, weight_decay=5e-4
    )
    batches = math.ceil(len(samples.targets) / batch_size)
    phase, total = min(phase, max(1, batches // 2)), epochs * batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min=2e-4)
    for _ in range(epochs):
        weights = None
        for number, batch in enumerate(_batches(samples, batch_size, generator)):
            if number // phase % 2 == 0:
                if number % phase == 0:
                    weights = _weights(net, validation, share, trade)
                losses = _losses(net, batch)
                logits = net.gate_logits(net.head_logits(batch.features))
                loss = gates_loss(logits, best_exit(losses, share, trade), weights)
                _step(optimizer, loss, net.heads)
            else:
                losses = _losses(net, batch)[:, :-1]
                gates = net.gate_logits(net.head_logits(batch.features)).sigmoid()
                loss = heads_loss(losses, exit_probabilities(gates))
                _step(optimizer, loss, net.gates)
            schedule.step()


def _losses(net: ExitNet, samples: Samples) -> Tensor:
    """(N, G + 1)."""
    logits = torch.cat((net.head_logits(samples.features), samples.final[:, None]), dim=1)
    targets = samples.targets[:, None].expand(-1, logits.shape[1])
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


@torch.no_grad()
def _weights(net: ExitNet, validation: Samples, share: Tensor, trade: float) -> Tensor:
    best = best_exit(_losses(net, validation), share, trade)
    return positive_weights(best, len(net.at))


@torch.no_grad()
def _accuracy(net: ExitNet, validation: Samples) -> Tensor:
    right = net.head_logits(validation.features).argmax(-1) == validation.targets[:, None]
    return right.float().mean(dim=0).cpu()


def _batches(samples: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    order = torch.randperm(len(samples.targets), generator=generator)
    for start in range(0, len(order), size):
        yield samples.part(order[start : start + size])


def _step(
    optimizer: torch.optim.Optimizer, loss: Tensor, fixed: torch.nn.Module | None = None
) -> None:
    optimizer.zero_grad()
    loss.backward()
    if fixed is not None:  # without a gradient SGD leaves it alone, momentum and decay too
        for parameter in fixed.parameters():
            parameter.grad = None
    optimizer.step()

# SPDX-License-Identifier: Apache-2.0
"""Early exits: heads within a frozen network and gates that send easy samples out, learnt together.

Regol et al. 2024, *Jointly-Learned Exit and Inference for a Dynamic Neural Network: JEI-DNN* (arXiv
2310.09163). A gate sees four numbers of its head's probabilities. What reaches an exit is what all
earlier gates let through, so the heads are trained on the samples that they will answer, and the
gates on where each sample is cheapest.

Here are the functions; `exit_net` holds the network, `exit_training` the two phases.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

POSITIVES_AT_MOST = 5.0
"""Largest weight of a gate's positive samples."""


def gate_inputs(logits: Tensor) -> Tensor:
    """What a gate sees of its head: (N, C) -> (N, 4).

    Largest probability; entropy in nats; margin between the two largest; entropy of the squared
    probabilities brought to a sum of 1. Without gradients.
    """
    p = logits.detach().softmax(dim=-1)
    top = p.topk(2, dim=-1).values
    sharp = p**2 / (p**2).sum(dim=-1, keepdim=True)
    columns = (top[:, 0], _entropy(p), top[:, 0] - top[:, 1], _entropy(sharp))
    return torch.stack(columns, dim=1)


def _entropy(p: Tensor) -> Tensor:
    found: Tensor = torch.special.entr(p).sum(dim=-1)
    return found


def exit_probabilities(gates: Tensor) -> Tensor:
    """Share of a sample that leaves at each exit: (N, G) gates in 0 to 1 -> (N, G).

    What is left, 1 - the sum, belongs to the final head. An exit gets at most what is left.
    """
    left = torch.ones_like(gates[:, 0])
    found = []
    for gate in gates.unbind(dim=1):
        share = torch.clamp(torch.minimum(gate, left), min=0)
        found.append(share)
        left = left - share
    return torch.stack(found, dim=1)


def exit_of(gates: Tensor) -> Tensor:
    """Where each sample leaves: (N, G) -> (N,) int64; G is the final head.

    The first exit that takes at least half of what reaches it; one that nothing reaches takes
    nothing (the published code divides 0 by 0 there).
    """
    left = torch.ones_like(gates[:, 0])
    found = torch.full_like(left, gates.shape[1], dtype=torch.long)
    for index, share in enumerate(exit_probabilities(gates).unbind(dim=1)):
        taken = torch.where(left > 0, share / left, torch.zeros_like(left)).clamp(0, 1)
        found = torch.where((taken >= 0.5) & (found == gates.shape[1]), index, found)
        left = left * (1 - taken)
    return found


def heads_loss(losses: Tensor, probabilities: Tensor) -> Tensor:
    """Loss of the heads with the gates fixed.

    Each sample's losses, weighted by where it leaves and brought back to their unweighted size; the
    ratio has a gradient too.

    Args:
        losses: (N, G) of each exit's head, without the final one.
        probabilities: (N, G), see `exit_probabilities`; no gradient flows into them.
    """
    weighted = losses * probabilities.detach()
    ratio = losses.sum(dim=1) / weighted.sum(dim=1).clamp(min=1e-12)  # none leaves: all weigh 0
    return (weighted * ratio[:, None]).sum(dim=1).mean() / losses.shape[1]


def probability_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """In place of the cross entropy: 1 less the probability of a right answer, 1 for a wrong one.

    (N, C), (N,) -> (N,).
    """
    p, said = logits.softmax(dim=-1).max(dim=-1)
    return 1 - p * (said == targets)


def best_exit(losses: Tensor, costs: Tensor, trade: float) -> Tensor:
    """The exit with the least loss plus trade times cost: (N, G + 1) -> (N,) int64.

    Args:
        losses: of every head, the final one last: cross entropies, or `probability_loss`.
        costs: (G + 1,), of the whole network's, the last 1.
        trade: what a whole network's operations are worth in loss; 0 and more.
    """
    return (losses + trade * costs.to(losses)).argmin(dim=1)


def positive_weights(best: Tensor, gates: int) -> Tensor:
    """Weight of a gate's positive samples, (G,): samples that do not best leave there, for each one
    that does, at most 5.

    Args:
        best: (N,) of a validation set, see `best_exit`.
    """
    counts = torch.bincount(best, minlength=gates + 1)[:gates].double()
    counts = counts.clamp(min=0.1)
    return ((len(best) - counts) / counts).clamp(max=POSITIVES_AT_MOST).float()


def gates_loss(gate_logits: Tensor, best: Tensor, weights: Tensor | None = None) -> Tensor:
    """Loss of the gates with the heads fixed: each should let out what is best out by then.

    Args:
        gate_logits: (N, G).
        best: (N,), see `best_exit`.
        weights: (G,), see `positive_weights`; all 1 when None.
    """
    gates = torch.arange(gate_logits.shape[1], device=best.device)
    targets = (gates >= best[:, None]).to(gate_logits)
    return F.binary_cross_entropy_with_logits(gate_logits, targets, pos_weight=weights)


def warmup_loss(losses: Tensor) -> Tensor:
    """Loss of all heads before there are gates: early ones count more, (N, G + 1) -> scalar."""
    count = losses.shape[1]
    weights = torch.arange(count, 0, -1, device=losses.device, dtype=losses.dtype)
    return (losses.mean(dim=0) * weights).sum()


def conformal_threshold(scores: Tensor, alpha: float) -> float:
    """Score below which the true class lies with probability 1 - alpha: 1 - p of the true class.

    Args:
        scores: (n,) of a calibration set.
        alpha: 0 to 1.

    Source: the ceil((n + 1)(1 - alpha)) / n quantile, Vovk et al. 2005.
    """
    n = len(scores)
    level = min(1.0, math.ceil(round((n + 1) * (1 - alpha), 9)) / n)
    return float(torch.quantile(scores.double(), level, interpolation="higher"))

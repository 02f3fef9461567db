# SPDX-License-Identifier: Apache-2.0
"""Losses that keep experts busy, logits small, and answers of different experts alike."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from .choice import Choice


def balance(choice: Choice, cost: Tensor | None = None) -> Tensor:
    """How unevenly the experts are used: E sum_i f_i P_i, 1 where all are used alike.

    f_i is the share of choices that fell on expert i, P_i its mean probability; masked tokens do
    not count. Fedus et al. 2021 (arXiv 2101.03961), eq. 4. Published variants differ by a factor:
    RMoE's is k times this, MoE++'s k / E times.

    Args:
        choice: of a layer.
        cost: (E,) factor of each expert, 1 by default; MoE++ has less for experts without products.
    """
    logits, chosen = choice.logits, choice.chosen
    probability = logits.softmax(dim=-1)
    if choice.mask is not None:
        probability = probability[choice.mask]
    mean = probability.flatten(0, -2).mean(dim=0) if probability.numel() else probability.sum(0)
    share = choice.usage().to(mean.dtype)
    each = share * mean if cost is None else cost * share * mean
    return chosen.shape[-1] * each.sum()


def mean_balance(choices: Iterable[Choice]) -> Tensor:
    """Mean of `balance` over layers."""
    return torch.stack([balance(choice) for choice in choices]).mean()


def z_loss(choice: Choice) -> Tensor:
    """Mean squared logarithm of the sum of exponentials of the logits (Zoph et al., 2202.08906)."""
    each = choice.logits.logsumexp(dim=-1).square()
    return each.mean() if choice.mask is None else each[choice.mask].mean()


def consistency(first: Tensor, second: Tensor, mask: Tensor | None = None) -> Tensor:
    """Half the symmetric divergence of two answers' softmax, summed over the tokens that count.

    Zuo et al. 2021, *Taming Sparsely Activated Transformer with Stochastic Experts* (arXiv
    2110.04260): loss = CE_1 + CE_2 + alpha times this, for two passes with other experts.

    Args:
        first, second: (..., classes) logits.
        mask: (...) bool.
    """
    one, two = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    each = ((one.exp() - two.exp()) * (one - two)).sum(dim=-1) / 2
    return each.sum() if mask is None else each[mask].sum()


def contrast(whole: Tensor, part: Tensor, temperature: float = 0.1) -> Tensor:
    """(B,) how far what a part gives is nearer to its own whole than to the others'.

    InfoNCE (van den Oord et al., arXiv 1807.03748) of the cosines, as AW-MoE sets it between the
    gates of whole and masked histories.

    Args:
        whole, part: (B, F), row by row of the same example.
        temperature: the cosines are divided by it.
    """
    cosine = F.normalize(whole, dim=-1) @ F.normalize(part, dim=-1).T
    return contrast_of(cosine, temperature)


def contrast_of(cosine: Tensor, temperature: float = 0.1) -> Tensor:
    """The same from the cosines (B, B)."""
    target = torch.arange(len(cosine), device=cosine.device)
    return F.cross_entropy(cosine / temperature, target, reduction="none")

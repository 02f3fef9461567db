# SPDX-License-Identifier: Apache-2.0
"""Attacks that guards are measured with: inputs moved within a small box against their answer.

Sources: FGSM, Goodfellow et al. (arXiv 1412.6572); PGD, Madry et al. (arXiv 1706.06083).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]
"""Inputs (N, ...) -> a scalar that grows as the answers get worse."""


def fgsm(loss: Loss, inputs: Tensor, epsilon: float, low: float, high: float) -> Tensor:
    """One step of `epsilon` along the gradient's sign, kept within `low` to `high`."""
    return pgd(loss, inputs, epsilon, low, high, steps=1, step=epsilon)


def pgd(
    loss: Loss,
    inputs: Tensor,
    epsilon: float,
    low: float,
    high: float,
    *,
    steps: int = 10,
    step: float | None = None,
) -> Tensor:
    """Steps along the gradient's sign, kept within `epsilon` of the inputs and `low` to `high`.

    Args:
        step: of one step; by default `2.5 * epsilon / steps`. Starts at the inputs themselves, so
            that the result is the same every time.
    """
    size = 2.5 * epsilon / steps if step is None else step
    moved = inputs.detach().clone()
    for _ in range(steps):
        with torch.enable_grad():
            moved.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(moved), moved)
        moved = moved.detach() + size * gradient.sign()
        moved = torch.clamp(moved, inputs - epsilon, inputs + epsilon).clamp(low, high)
    return moved

# SPDX-License-Identifier: Apache-2.0
"""Fixed-point tensors, and numbers of bits that are learnt with the weights.

Zhao et al. 2020, *Learned Low Precision Graph Neural Networks* (arXiv 2009.09232), LPGNAS: each
tensor mixes several formats by Gumbel softmax while it trains; the loss has a term for the size; at
last the format with the largest weight is used alone. Gradients pass straight through the rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Format:
    """A sign, `integer` bits before the point, `fraction` bits behind it."""

    integer: int
    fraction: int

    @property
    def bits(self) -> int:
        """Of one number."""
        return 1 + self.integer + self.fraction


class _Round(torch.autograd.Function):
    """Nearest number of a format, half to even; gradient 1 within its range, 0 outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, integer: int, fraction: int) -> Tensor:
        low, high = -(2.0**integer), 2.0**integer - 2.0**-fraction
        ctx.save_for_backward((x >= low) & (x <= high))
        rounded: Tensor = (torch.round(x * 2**fraction) / 2**fraction).clamp(low, high)
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


def fixed_point(x: Tensor, form: Format) -> Tensor:
    """x as numbers of a format: -2^i to 2^i - 2^-f in steps of 2^-f."""
    return cast(Tensor, _Round.apply(x, form.integer, form.fraction))


def format_for(x: Tensor, bits: int) -> Format:
    """The format of so many bits, 2 or more, whose range just holds the largest value of x.

    Where even the largest range is too small for a fraction, values are clipped.
    """
    largest = float(x.detach().abs().max())
    integer = 0
    while 2**integer <= largest and integer < bits - 1:
        integer += 1
    return Format(integer, bits - 1 - integer)


class LearntBits(nn.Module):
    """A tensor in one of several formats, mixed while training.

    Attributes:
        alpha: (K,), learnt; in evaluation the largest one's format is used alone.

    Args:
        formats: fewest bits first.
        temperature: of the mixture; lower is nearer to one format.
    """

    def __init__(self, formats: Sequence[Format], temperature: float = 1.0) -> None:
        super().__init__()
        if not formats:
            raise ValueError("at least one format is needed")
        self.formats = tuple(formats)
        self.alpha = nn.Parameter(torch.zeros(len(formats)))
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training:
            return fixed_point(x, self.formats[int(self.alpha.argmax())])
        weights = F.gumbel_softmax(self.alpha, tau=self.temperature)
        rounded = torch.stack([fixed_point(x, form) for form in self.formats])
        mixed: Tensor = torch.tensordot(weights, rounded, dims=1)
        return mixed

    def bits(self) -> Tensor:
        """Expected bits of a number, with a gradient, for the loss: times the tensor's elements."""
        table = self.alpha.new_tensor([form.bits for form in self.formats])
        return (self.alpha.softmax(dim=0) * table).sum()

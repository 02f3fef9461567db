# SPDX-License-Identifier: Apache-2.0
"""Window cascade: a second network is asked only where the first one's sureness is undecided.

One decision is fixed beforehand (what share to answer, or at what risk), which puts a threshold on
sureness; only samples near that threshold can change sides, so only those are passed on. What is
passed on gets the mean of both networks' probabilities, exactly as in the full ensemble.

Source: Xia and Bouganis, "Window-Based Early-Exit Cascades for Uncertainty Estimation: When Deep
Ensembles are More Efficient than Single Models" (arXiv 2303.08010).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Sureness = Callable[[Tensor], Tensor]
"""Logits (N, C) -> (N,) float64; large where the network is sure."""

HALF_WIDTH = 0.1
"""Of a window, as a share of the validation samples on either side of the threshold."""


def confidence(logits: Tensor) -> Tensor:
    """Largest probability, 0 to 1; float64, as many round to 1 in single precision."""
    return torch.softmax(logits.double(), dim=-1).amax(dim=-1)


def negative_entropy(logits: Tensor) -> Tensor:
    """Entropy of the probabilities in nats, times -1: -log C to 0."""
    log = torch.log_softmax(logits.double(), dim=-1)
    return (log.exp() * log).sum(dim=-1)


def max_logit(logits: Tensor) -> Tensor:
    """Largest logit."""
    return logits.amax(dim=-1).double()


def energy(logits: Tensor) -> Tensor:
    """Log of the sum of exponentiated logits (minus the free energy)."""
    return torch.logsumexp(logits.double(), dim=-1)


@dataclass(frozen=True)
class Window:
    """Sureness from `low` to `high`, both included: what is passed on to the second network."""

    low: float
    high: float

    def holds(self, sureness: Tensor) -> Tensor:
        """(N,) bool."""
        return (sureness >= self.low) & (sureness <= self.high)


def risk_coverage(sureness: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Risk when only the surest are answered.

    Args:
        sureness: (N,).
        right: (N,) bool, whether the answer is right.

    Returns:
        risk (N + 1,) float64, of the k surest, 0 for none; sureness in falling order (N,).
    """
    order = torch.argsort(sureness, descending=True, stable=True)
    wrong = (~right[order]).double().cumsum(0)
    ranks = torch.arange(1, len(order) + 1, dtype=torch.float64)
    return torch.cat((wrong.new_zeros(1), wrong / ranks)), sureness[order]


def threshold_at_risk(
    sureness: Tensor, right: Tensor, risk: float, ignored: int | None = None
) -> float:
    """Sureness down to which one may answer at a risk as near as can be to `risk`.

    Args:
        ignored: first ranks that are not looked at, as the curve is noise there; by default 500,
            or a twentieth of the samples where that is less.
    """
    if ignored is None:
        ignored = min(500, len(sureness) // 20)
    curve, falling = risk_coverage(sureness, right)
    best = ignored + int((curve[ignored:] - risk).abs().argmin())
    return float(falling[min(best, len(falling) - 1)])


def threshold_at_coverage(sureness: Tensor, coverage: float) -> float:
    """Sureness of the least sure sample when the share `coverage` of the surest is answered."""
    falling = torch.sort(sureness, descending=True).values
    return float(falling[min(round(coverage * len(falling)), len(falling) - 1)])


def window_around(threshold: float, sureness: Tensor, half_width: float = HALF_WIDTH) -> Window:
    """The window whose edges lie `half_width` quantiles to either side of a threshold.

    Args:
        sureness: (N,) of the validation samples; of the test samples themselves, unlabelled, where
            those are known to be shifted.
    """
    own = sureness.double()
    place = float((own <= threshold).double().mean())
    edges = own.new_tensor([max(0.0, place - half_width), min(1.0, place + half_width)])
    low, high = torch.quantile(own, edges).tolist()
    return Window(low, high)


@dataclass(frozen=True)
class Answers:
    """What a cascade says.

    Attributes:
        log_probabilities: (N, C) float32.
        sureness: (N,) float64; the mean of both networks' inside the window.
        passed_on: (N,) bool.
    """

    log_probabilities: Tensor
    sureness: Tensor
    passed_on: Tensor

    def cost(self, first: float, second: float) -> float:
        """Mean cost of a sample, in the unit of the two networks' costs."""
        return first + float(self.passed_on.double().mean()) * second


def cascade(
    first: Tensor,
    second: Callable[[Tensor], Tensor],
    window: Window,
    sureness: Sureness = confidence,
) -> Answers:
    """Ask the second network about what lies in the window.

    Args:
        first: (N, C) logits of the first network.
        second: indices (M,) of samples -> their logits (M, C); not called when M is 0.
        window: of the first network's sureness.
    """
    sure = sureness(first)
    passed_on = window.holds(sure)
    answers = torch.log_softmax(first.double(), dim=-1).float()
    chosen = passed_on.nonzero().flatten()
    if len(chosen):
        logits = second(chosen)
        answers[chosen] = mean_of_probabilities(first[chosen], logits)
        sure = sure.index_put((chosen,), (sure[chosen] + sureness(logits)) / 2)
    return Answers(answers, sure, passed_on)


def mean_of_probabilities(*logits: Tensor) -> Tensor:
    """Of several networks' logits (N, C): log of the mean probability, (N, C) float32."""
    return torch.stack([torch.softmax(one.double(), -1) for one in logits]).mean(0).log().float()

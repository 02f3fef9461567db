# SPDX-License-Identifier: Apache-2.0
"""Binary gates: candidates of a layer that learn by gradient which of them is best.

ProxylessNAS (Cai et al. 2019, arXiv 1812.00332). Weights are trained with one sampled candidate, so
memory is that of one network; the gates' logits are trained in turns, from the validation data.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """One of several candidates, drawn by softmax of learnable logits.

    Args:
        candidates: (batch, ...) -> equal shapes.
        latency: of each candidate, any unit.
        start: spread of the logits at the start.

    Attributes:
        logits: (candidates,); their gradient is set by `gate_gradient`.
    """

    def __init__(
        self, candidates: Sequence[nn.Module], latency: Sequence[float], start: float = 1e-3
    ) -> None:
        super().__init__()
        if len(candidates) != len(latency) or len(candidates) < 2:
            raise ValueError("needs two candidates or more, and the latency of each")
        self.candidates = nn.ModuleList(candidates)
        self.logits = nn.Parameter(torch.randn(len(candidates)) * start)
        self.latency: Tensor
        self.register_buffer("latency", torch.tensor(latency, dtype=torch.float32))
        self._drawn: Tensor | None = None
        self._gates: Tensor | None = None

    def draw(self, generator: torch.Generator | None = None, *, two: bool = False) -> Tensor:
        """Draw what the next forward passes run; returns the candidates, the active one first.

        Args:
            two: also draw a second one, so that the update of the logits needs two outputs only.
        """
        chances = self.logits.detach().softmax(0)
        drawn = torch.multinomial(chances, 2 if two else 1, generator=generator)
        if two:
            pair = self.logits.detach()[drawn].softmax(0)
            active = torch.multinomial(pair, 1, generator=generator)
            drawn = torch.cat([drawn[active], drawn[1 - active]])
        return self.set(drawn)

    def set(self, drawn: Tensor) -> Tensor:
        """Fix what runs: candidates, the active one first."""
        self._drawn, self._gates = drawn, None
        return drawn

    def best(self) -> int:
        """The candidate of the largest logit."""
        return int(self.logits.argmax())

    def forward(self, x: Tensor) -> Tensor:
        """The active candidate alone; no gradient reaches the logits."""
        index = self.best() if self._drawn is None else int(self._drawn[0])
        output: Tensor = self.candidates[index](x)
        return output

    def with_gates(self, outputs: Sequence[Tensor]) -> Tensor:
        """The active output, so that a backward pass leaves the gates' gradient behind.

        Args:
            outputs: of the candidates that `competing` names, in its order.
        """
        gates = torch.zeros(len(outputs))
        gates[self._place()] = 1.0
        self._gates = gates.requires_grad_()
        # What is not active has a gate and no gradient of its own.
        held = [o if place == self._place() else o.detach() for place, o in enumerate(outputs)]
        return sum(
            (gate * output for gate, output in zip(self._gates, held, strict=True)),
            start=torch.zeros(()),
        )

    def competing(self) -> list[int]:
        """The candidates whose logits change: the two that were drawn, or all, in rising order."""
        if self._drawn is None:
            raise RuntimeError("draw first")
        two = len(self._drawn) == 2
        return sorted(self._drawn.tolist()) if two else list(range(len(self.candidates)))

    def _place(self) -> int:
        assert self._drawn is not None
        return self.competing().index(int(self._drawn[0]))

    def expected_latency(self) -> Tensor:
        """Mean latency by the probabilities of what competes, with its gradient; scalar."""
        places = self.competing() if self._drawn is not None else range(len(self.candidates))
        chances = self.logits[list(places)].softmax(0)
        return (chances * self.latency[list(places)]).sum()

    def add_gate_gradient(self) -> None:
        """After a backward pass: add the task's part to the logits' gradient.

        dL/dlogit_i = sum_j dL/dgate_j p_j (1[i = j] - p_i), over what competes.
        """
        if self._gates is None or self._gates.grad is None:
            raise RuntimeError("needs a backward pass through with_gates")
        places = self.competing()
        chances = self.logits.detach()[places].softmax(0)
        towards = self._gates.grad
        own = chances * (towards - (chances * towards).sum())
        if self.logits.grad is None:
            self.logits.grad = torch.zeros_like(self.logits)
        self.logits.grad[places] += own

    @torch.no_grad()
    def rescale(self, before: Tensor) -> None:
        """After a step on two: shift both so that all others keep their probability.

        Args:
            before: the logits before the step.
        """
        places = self.competing()
        if len(places) == len(self.logits):
            return
        shift = self.logits[places].logsumexp(0) - before[places].logsumexp(0)
        self.logits[places] -= shift


def total_loss(
    task: Tensor, latency: Tensor, reference: float, *, weight: float = 0.2, power: float = 0.3
) -> Tensor:
    """weight * task * (ln latency / ln reference)^power, of the whole network."""
    ratio = latency.log() / torch.tensor(reference).log()
    return weight * task * ratio**power

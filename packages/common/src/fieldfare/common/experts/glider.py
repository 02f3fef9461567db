# SPDX-License-Identifier: Apache-2.0
"""One adapter for each known domain, mixed by what a token and what the whole input are like.

Li et al. 2024, *Glider* (arXiv 2410.07172). Adapters are LoRA (arXiv 2106.09685); the whole input
is told by a vector of its own, such as the statistics of a capture, a scene or a scan.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bank import Bank, Weights
from .choice import Choice, Choose, finish
from .layer import ExpertLayer
from .routing import State, scores


class LocalGlobalRouter(nn.Module):
    """LN(x) . g / sqrt(D) + scale * cosine(task, expert), nothing of it trained together.

    Args:
        gates: (E, D), each trained alone beside its frozen adapter, see `gated`; normalised here.
        experts: (E, F), what the input sets of the adapters are like.
        scale: of the global part; 3 mixes, 100 lets it decide alone; 0 needs no task.
        least: adapters whose input sets are less like the task than this cosine get no token.
    """

    gates: Tensor
    experts: Tensor

    def __init__(
        self, gates: Tensor, experts: Tensor, scale: float = 3.0, least: float = -1.0
    ) -> None:
        super().__init__()
        self.count, self.scale, self.least = len(gates), scale, least
        self.register_buffer("gates", F.layer_norm(gates.detach(), gates.shape[1:]))
        self.register_buffer("experts", experts.detach().clone())

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `routing.Router`.

        Raises:
            ValueError: the pass has no task, or one that is like no adapter's.
        """
        width = x.shape[-1]
        logits = scores(F.layer_norm(x, (width,)), self.gates) / width**0.5
        if self.scale == 0:
            return logits, None
        if state.task is None:
            raise ValueError("this router wants the `task` vector in the pass's state")
        near = likeness(state.task, self.experts)
        if self.least > -1:
            if not bool((near >= self.least).any(dim=-1).all()):
                raise ValueError(f"a task is like no adapter's input (cosine {self.least:g})")
            near = near.masked_fill(near < self.least, -torch.inf)
        if near.ndim > 1:
            near = near.repeat_interleave(len(x) // len(near), dim=0)[:, None]
        return logits + self.scale * near, None


def likeness(task: Tensor, experts: Tensor) -> Tensor:
    """Cosines of (..., F) tasks and (E, F) input sets, (..., E)."""
    return F.cosine_similarity(task[..., None, :], experts, dim=-1)


class TopP:
    """Each token's likeliest experts until their probabilities reach p, renormalised.

    Args:
        p: above 0, to 1.
    """

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise ValueError(f"p {p}: must be above 0 and at most 1")
        self.p = p

    def __call__(self, logits: Tensor, mask: Tensor | None = None) -> Choice:
        """See `choice.Choose`."""
        likely, order = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        kept = likely.cumsum(dim=-1) - likely < self.p
        weights = likely * kept / (likely * kept).sum(dim=-1, keepdim=True)
        chosen = torch.zeros_like(kept).scatter(-1, order, kept)
        return finish(chosen, torch.zeros_like(weights).scatter(-1, order, weights), logits, mask)


def adapters(parts: list[tuple[Tensor, Tensor]], alpha: float = 1.0) -> Bank:
    """LoRA adapters as experts.

    Args:
        parts: of each A (R, D) and B (O, R).
        alpha: outputs are alpha / R times B A x.
    """
    down, up = (torch.stack(every) for every in zip(*parts, strict=True))
    scale = alpha / down.shape[1]
    return Bank(1, 1, 1, activation="identity").like(Weights(down, up * scale, None, None))


def glider(base: nn.Module, bank: Bank, router: LocalGlobalRouter, choose: Choose) -> ExpertLayer:
    """A linear layer with its adapters."""
    return ExpertLayer(router, choose, [bank], shared=base)


def gated(base: nn.Module, bank: Bank, expert: int, gate: Tensor, x: Tensor) -> Tensor:
    """Base plus one frozen adapter times sigmoid(x . gate), for training its gate row.

    Args:
        base: (N, D) -> (N, O).
        bank: the adapters.
        expert: number of the adapter.
        gate: (D,), learnt.
        x: (N, D).
    """
    found: Tensor = base(x)
    return found + bank.run(x, bank.fetch(expert)) * (x @ gate).sigmoid()[:, None]

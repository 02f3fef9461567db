# SPDX-License-Identifier: Apache-2.0
"""Experts mixed by the events seen so far: as few of them as of all.

Gong et al. 2023, *Attention Weighted Mixture of Experts with Contrastive Learning* (AW-MoE, arXiv
2306.05011). Events may be packets, bursts or dates; `losses.contrast` between the gates of whole
and truncated histories (`truncate`) makes an early answer use the experts of the late one.
"""

import torch
from torch import Tensor, nn

from .choice import Choice
from .routing import State


class EventGate(nn.Module):
    """sum_j w_j g_j over events j, w_j in 0 to 1 and g_j (E,) from event and query.

    Args:
        event, query: their widths.
        count: E.
        hidden: units of both networks.
    """

    def __init__(self, event: int, query: int, count: int, hidden: int = 32) -> None:
        super().__init__()
        self.count = count
        both = event + query
        self.attend = nn.Sequential(nn.Linear(both, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.gate = nn.Sequential(nn.Linear(both, hidden), nn.ReLU(), nn.Linear(hidden, count))

    def forward(self, events: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        """Mix.

        Args:
            events: (B, J, F).
            query: (B, Q).
            mask: (B, J) bool, events that were seen.

        Returns:
            (B, E), any real numbers; 0 without events.
        """
        both = torch.cat([events, query[:, None].expand(-1, events.shape[1], -1)], dim=-1)
        return pooled(self.attend(both)[..., 0].sigmoid(), self.gate(both), mask)


def pooled(weight: Tensor, gate: Tensor, mask: Tensor) -> Tensor:
    """(B, J) and (B, J, E) summed over the events that were seen, (B, E)."""
    return torch.einsum("bj,bje->be", weight * mask, gate)


def truncate(mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(B, J) of seen events, of which the last ones are hidden: 1 to all of a row's are left."""
    seen = mask.sum(dim=1).clamp_min(1)
    share = torch.rand(len(mask), generator=generator).to(mask.device)
    kept = (share * seen).floor() + 1
    return mask & (mask.cumsum(dim=1) <= kept[:, None])


class GateRouter(nn.Module):
    """The same gate for every token of a sequence, given in `State.task` (B, E)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `routing.Router`.

        Raises:
            ValueError: the pass has no gate.
        """
        if state.task is None:
            raise ValueError("this router wants a gate (B, E) as `task` in the pass's state")
        gate = state.task.repeat_interleave(len(x) // len(state.task), dim=0)
        return gate[:, None].expand(*x.shape[:-1], self.count), None


def weighted(logits: Tensor, mask: Tensor | None = None) -> Choice:
    """All experts, with the gate itself as their weights; see `choice.Choose`."""
    weights = logits if mask is None else logits * mask[..., None]
    chosen = torch.ones_like(logits, dtype=torch.bool)
    chosen = chosen if mask is None else chosen & mask[..., None]
    return Choice(chosen, weights, logits, mask, every=True)

# SPDX-License-Identifier: Apache-2.0
"""Activations below a threshold are skipped: gated layers work on the channels that matter.

He et al. 2024, *CHESS: Optimizing LLM Inference via Channel-Wise Thresholding and Selective
Sparsification* (arXiv 2409.01366). In down(act(gate x) * (up x)) a channel of the gate whose value
is small against what it is multiplied with is set to zero; the rows of `up` and columns of `down`
that belong to it need not be read. A value counts |gate| times the mean of |up| of its channel.
Means and quantiles are of each calibration sequence, then averaged, so short ones count like long.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def order_statistic(values: Tensor, share: float) -> float:
    """The int(n share)-th smallest value, counted from 1.

    Raises:
        ValueError: too few values for that share; there is no 0-th.
    """
    flat = values.flatten()
    k = int(len(flat) * share)
    if not 1 <= k <= len(flat):
        raise ValueError(f"sparsity {share}: {len(flat)} values are too few for such a share")
    return float(flat.detach().kthvalue(k).values)


def mean_order_statistic(sequences: Iterable[Tensor], share: float) -> float:
    """Mean over sequences of their order statistics."""
    found = [order_statistic(sequence, share) for sequence in sequences]
    if not found:
        raise ValueError("calibration needs at least one sequence")
    return sum(found) / len(found)


@dataclass(frozen=True)
class Thresholds:
    """Of a gated layer.

    Attributes:
        importance: below which a value times its channel's weight is dropped.
        channels: (H,), importance / weight; infinite for a channel that `up` leaves at zero.
    """

    importance: float
    channels: Tensor


def channel_thresholds(gates: Sequence[Tensor], ups: Sequence[Tensor], share: float) -> Thresholds:
    """Thresholds at which about a share of the gate's values is dropped.

    Args:
        gates: of each calibration sequence, after the activation, (T, H).
        ups: (T, H).
        share: 0 to 1; what is reached on other data differs.
    """
    weight = torch.stack([up.abs().mean(dim=0) for up in ups]).mean(dim=0)
    importance = mean_order_statistic((gate.abs() * weight for gate in gates), share)
    return Thresholds(importance, importance / weight)


def keep_above(values: Tensor, thresholds: Tensor | float) -> Tensor:
    """Values with those below their channel's threshold set to zero, (..., H)."""
    return torch.where(values.abs() >= thresholds, values, torch.zeros_like(values))


class SparseGated(nn.Module):
    """down(keep(act(gate x)) * (up x)), reading only what is kept where that is faster.

    One token at a time, on the CPU, the rows of `up` and columns of `down` that are not needed are
    not read; batches are masked and gain nothing.

    Args:
        gate, up: (D) -> (H); down: (H) -> (D).
        thresholds: (H,).
        activation: behind the gate.
    """

    thresholds: Tensor

    def __init__(
        self,
        gate: nn.Linear,
        up: nn.Linear,
        down: nn.Linear,
        thresholds: Tensor,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.gate, self.up, self.down = gate, up, down
        self.activation = nn.SiLU() if activation is None else activation
        self.register_buffer("thresholds", thresholds)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate = keep_above(self.activation(self.gate(x)), self.thresholds)
        if x.device.type == "cpu" and gate[..., 0].numel() == 1 and not torch.is_grad_enabled():
            return self._one(x, gate)
        found: Tensor = self.down(gate * self.up(x))
        return found

    def _one(self, x: Tensor, gate: Tensor) -> Tensor:
        kept = gate.flatten().nonzero().flatten()
        bias = None if self.up.bias is None else self.up.bias[kept]
        up = nn.functional.linear(x, self.up.weight[kept], bias)
        # a layer that is only read this way could keep its weight transposed
        return nn.functional.linear(gate[..., kept] * up, self.down.weight[:, kept], self.down.bias)

    def kept(self, x: Tensor) -> float:
        """Share of the gate's values that are kept, 0 to 1."""
        gate = self.activation(self.gate(x))
        return float((gate.abs() >= self.thresholds).double().mean())

    def macs(self, x: Tensor) -> int:
        """Multiply-accumulates that x takes, counting what is skipped as nothing."""
        rows = x[..., 0].numel()
        kept = round(self.kept(x) * rows * self.gate.out_features)
        return rows * self.gate.weight.numel() + kept * (x.shape[-1] + self.down.out_features)


@torch.no_grad()
def sparsify_gated(
    gate: nn.Linear,
    up: nn.Linear,
    down: nn.Linear,
    sequences: Sequence[Tensor],
    share: float,
    activation: nn.Module | None = None,
) -> SparseGated:
    """A gated layer with thresholds from calibration sequences of its inputs, (T, D) each."""
    act = nn.SiLU() if activation is None else activation
    gates = [act(gate(x)) for x in sequences]
    found = channel_thresholds(gates, [up(x) for x in sequences], share)
    return SparseGated(gate, up, down, found.channels, act)

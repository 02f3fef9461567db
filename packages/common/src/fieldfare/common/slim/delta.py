# SPDX-License-Identifier: Apache-2.0
"""Delta activation: over time only what changed is computed anew.

Activations are rounded to multiples of a learnt threshold, so that neighbouring frames mostly
agree; a penalty on their differences makes them agree more; the linear layer behind works on
differences and adds them up.

Yousefzadeh and Sifalakis 2021, *Training for temporal sparsity in deep neural networks, application
in video processing* (arXiv 2107.07305): rounding passes gradients straight through; the threshold
as a divisor gets none, as a factor it gets the negative of its own, which lets the task raise it.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Quantise(torch.autograd.Function):
    """round(x / t) t."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor) -> Tensor:
        steps = torch.round(x / threshold)
        ctx.save_for_backward(steps, threshold)
        return steps * threshold

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        steps, threshold = ctx.saved_tensors
        of_threshold = -(gradient * steps).sum_to_size(threshold.shape)
        return gradient, of_threshold


class DeltaActivation(nn.Module):
    """(B, T, ..., C) -> the same shape: ReLU, rounded to multiples of a threshold a channel.

    Attributes:
        theta: (C,), its size is the threshold.

    Args:
        channels: C.
        start: threshold at first.
    """

    def __init__(self, channels: int, start: float = 0.1) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, ..., C) -> the same shape."""
        return cast(Tensor, _Quantise.apply(F.relu(x), self.theta.abs()))


def changes(x: Tensor) -> Tensor:
    """(B, T, ..., C) -> the first frame, then each one's difference to the one before."""
    return torch.cat((x[:, :1], x[:, 1:] - x[:, :-1]), dim=1)


def change_penalty(x: Tensor, fan_out: int = 1) -> Tensor:
    """Mean size of the differences between frames, times what each costs: (B, T, ..., C) -> scalar.

    Args:
        fan_out: multiply-accumulates that one change costs in the layer behind.
    """
    return (x[:, 1:] - x[:, :-1]).abs().mean() * fan_out


class DeltaLinear(nn.Module):
    """A linear layer that is given one frame after another and reads only what changed.

    The output is that of the layer itself up to the rounding of the sums; every `refresh` frames it
    is computed anew, so that the rounding does not grow.

    Attributes:
        macs: multiply-accumulates done since the last `reset`.

    Args:
        layer: shared, not copied.
        refresh: frames between whole computations, at least 1.
    """

    def __init__(self, layer: nn.Linear, refresh: int = 1000) -> None:
        super().__init__()
        if refresh < 1:
            raise ValueError(f"refresh {refresh}: must be at least 1")
        self.layer, self.refresh = layer, refresh
        self.reset()

    def reset(self) -> None:
        """Forget the frames; the next one is computed whole."""
        self._last: Tensor | None = None
        self._sum: Tensor | None = None
        self._frames = 0
        self.macs = 0

    @torch.no_grad()
    def forward(self, frame: Tensor) -> Tensor:
        """(N, C), the same N in every call -> (N, O)."""
        whole = self._last is None or self._frames % self.refresh == 0
        self._frames += 1
        if self._last is None or self._sum is None or whole:
            self._sum = self.layer(frame)
            self.macs += frame.numel() * self.layer.out_features
        else:
            if frame.shape != self._last.shape:
                raise ValueError(
                    f"frame of shape {tuple(frame.shape)} after {tuple(self._last.shape)}: "
                    "call reset() between sequences"
                )
            change = frame - self._last
            columns = change.any(dim=0).nonzero().flatten()
            self._sum = self._sum + F.linear(change[:, columns], self.layer.weight[:, columns])
            self.macs += len(frame) * len(columns) * self.layer.out_features
        self._last = frame
        return self._sum

# SPDX-License-Identifier: Apache-2.0
"""EvoNorm: normalisation and activation found as one layer, in one, two and three dimensions.

Liu et al. 2020, *Evolving Normalization-Activation Layers* (arXiv 2004.02967), table 1 (B0, S0).
No activation belongs behind either.
"""

import torch
from torch import Tensor, nn


class EvoNormS0(nn.Module):
    """x sigmoid(v x) / sqrt(variance of the group + eps) * weight + bias; (B, C, *size) in and out.

    No example depends on another, so it goes with any batch and with reversible stages.

    Args:
        channels: C.
        groups: divides C; the variance is that of a group's channels over space.
    """

    def __init__(self, channels: int, groups: int = 8, eps: float = 1e-5) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"groups {groups} must divide channels {channels}")
        self.groups, self.eps = groups, eps
        self.weight, self.bias = _affine(channels)
        self.v = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> the same shape.

        Raises:
            ValueError: a group has one value, which has no variance.
        """
        values = x.flatten(2).unflatten(1, (self.groups, -1)).flatten(2)
        if values.shape[2] == 1:
            raise ValueError(f"a group of one value has no variance, got {tuple(x.shape)}")
        variance = _variance(values, 2)  # (B, groups)
        inverse = (variance + self.eps).rsqrt().repeat_interleave(x.shape[1] // self.groups, dim=1)
        scale = _spread(inverse.to(x.dtype), x)
        y = x * torch.sigmoid(_spread(self.v, x) * x) * scale
        return y * _spread(self.weight, x) + _spread(self.bias, x)


class EvoNormB0(nn.Module):
    """x / max(sqrt(batch variance), v x + sqrt(instance variance)), times weight, plus bias.

    Both variances have eps added. As in a batch norm, evaluation takes the running batch variance;
    the instance's is always its own.

    Args:
        channels: C.
        momentum: of the running variance.
    """

    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-3, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = _affine(channels)
        self.v = nn.Parameter(torch.ones(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> the same shape.

        Raises:
            ValueError: in training, one value a channel, which has no variance.
        """
        batch = self.running_var
        if self.training:
            count = x.numel() // x.shape[1]
            if count == 1:
                raise ValueError(f"one value a channel has no variance, got {tuple(x.shape)}")
            batch = _variance(x.transpose(0, 1).flatten(1), 1)
            unbiased = batch.detach() * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        instance = _variance(x.flatten(2), 2)
        left = _spread((batch + self.eps).sqrt().to(x.dtype), x)
        right = _spread((instance + self.eps).sqrt().to(x.dtype), x) + _spread(self.v, x) * x
        y = x / torch.maximum(left, right)
        return y * _spread(self.weight, x) + _spread(self.bias, x)


def _affine(channels: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


def _variance(x: Tensor, axis: int) -> Tensor:
    """Biased; summed in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32)).var(axis, correction=0)


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """(C,) or (B, C) so that it goes with x (B, C, *size)."""
    return values.view(*values.shape, *[1] * (x.ndim - 2))

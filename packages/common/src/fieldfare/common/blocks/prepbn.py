# SPDX-License-Identifier: Apache-2.0
"""PRepBN: a layer norm that turns into a batch norm while the network trains, and then vanishes.

Guo et al. 2024, *SLAB: Efficient Transformers with Simplified Linear Attention and Progressive
Re-parameterized Batch Normalization* (arXiv 2405.11582), section 3.2. In inference a batch norm is
one scale and one shift a channel, and those fold into the linear layer behind it.

Two things differ from the published code. Steps are those of the optimiser, not calls, so that
accumulated gradients do not shorten the schedule. And evaluation measures the mixture that is being
trained; the published layer evaluates the batch norm alone, at its first step already.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .steps import Stepped


class RepBN(nn.Module):
    """Batch norm over all tokens plus alpha times the input; (..., C) in and out.

    Args:
        channels: C.
        eps: of the batch norm.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=eps)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape; in training mode the running statistics move."""
        found: Tensor = self.norm(x.reshape(-1, x.shape[-1])).view(x.shape) + self.alpha * x
        return found

    def fuse(self) -> "ChannelAffine":
        """The same function in inference, by the running statistics."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # float64, so that folding adds no more than the rounding of the folded weights
        mean, var = norm.running_mean.double(), norm.running_var.double()
        slope = norm.weight.detach().double() / (var + norm.eps).sqrt()
        shift = norm.bias.detach().double() - slope * mean
        scale = slope + self.alpha.detach().double()
        kind = norm.weight.dtype
        return ChannelAffine(scale.to(kind), shift.to(kind)).train(self.training)


class ChannelAffine(nn.Module):
    """scale * x + shift, both (C,); what is left of a RepBN that no linear layer follows."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        return torch.addcmul(self.shift, x, self.scale)


class PRepBN(Stepped):
    """share * LayerNorm(x) + (1 - share) * RepBN(x), (..., C) in and out; share falls from 1 to 0.

    For the first `warmup` steps the layer norm acts alone and the statistics of the batch norm do
    not move. Then share falls by 1 / steps each step. Padding tokens count as tokens: a batch norm
    has no mask.

    Args:
        channels: C.
        steps: optimiser steps from layer norm to batch norm; 0 builds no layer norm at all (the
            form of a finished network, which folds at once).
        warmup: optimiser steps before them.
        eps: of the layer norm and of the batch norm.
        norm_eps: of the layer norm, where it differs.

    The steps must be counted, see `Stepped`.
    """

    def __init__(
        self,
        channels: int,
        steps: int,
        *,
        warmup: int = 0,
        eps: float = 1e-5,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        if steps < 0 or warmup < 0 or (warmup and not steps):
            raise ValueError(f"steps {steps} and warmup {warmup}: at least 0, no warmup alone")
        self.steps, self.warmup = steps, warmup
        norm_eps = eps if norm_eps is None else norm_eps
        self.layer = nn.LayerNorm(channels, eps=norm_eps) if steps else None
        self.batch = RepBN(channels, eps)

    @property
    def share(self) -> float:
        """Weight of the layer norm, 0 to 1."""
        if self.layer is None:
            return 0.0
        return min(1.0, max(0.0, 1 - (int(self.done) - self.warmup) / self.steps))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        share = self.share
        if self.layer is None or share == 0:
            mixed: Tensor = self.batch(x)
            return mixed
        found: Tensor = self.layer(x)
        warming = int(self.done) < self.warmup
        if warming or (share == 1 and not self.training):
            return found
        batch: Tensor = self.batch(x)
        return share * found + (1 - share) * batch

    def fuse(self) -> ChannelAffine:
        """The same function in inference, without the layer norm.

        Raises:
            ValueError: the layer norm still has a share.
        """
        if self.share > 0:
            raise ValueError(
                f"PRepBN folds at the end of its schedule; {int(self.done)} of "
                f"{self.warmup + self.steps} steps are done"
            )
        return self.batch.fuse()


def fold(norm: nn.Module, *layers: nn.Module) -> nn.Module:
    """Put a PRepBN, RepBN or ChannelAffine into the linear layers that read its output.

    For the `reparameterize` of a block: `self.norm = fold(self.norm, self.qkv)`. Name every
    reader, or the others see the input unscaled; a norm whose output is also added to something
    cannot be folded. Any other norm is given back as it is, so a second call changes nothing.

    Args:
        norm: the norm in front of the layers.
        layers: `nn.Linear`, changed in place (a bias is added where there is none).

    Returns:
        `nn.Identity`, or norm itself where it is of another kind.

    Raises:
        TypeError: a layer is not linear.
        ValueError: see `PRepBN.fuse`.
    """
    for layer in layers:
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"a norm folds into nn.Linear, got {type(layer).__name__}")
    if isinstance(norm, PRepBN | RepBN):
        norm = norm.fuse()
    if not isinstance(norm, ChannelAffine):
        return norm
    scale, shift = norm.scale.detach().double(), norm.shift.detach().double()
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        weight = layer.weight.detach().double()
        bias = F.linear(shift, weight)
        if layer.bias is not None:
            bias = bias + layer.bias.detach().double()
        kind = layer.weight.dtype
        layer.weight = nn.Parameter((weight * scale).to(kind))
        layer.bias = nn.Parameter(bias.to(kind))
    return nn.Identity()

# SPDX-License-Identifier: Apache-2.0
"""Convolutions with experts: one router looks at the input and picks one expert for all of them.

Zhang et al. 2023, *Robust Mixture-of-Expert Training for CNNs*, AdvMoE (arXiv 2308.10110), here in
one, two and three dimensions. Experts may stand for sensors or resolutions, known without a router.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.blocks import adaptive_avg_pool, convolution, convolve, normalisation


class ExpertConv(nn.Module):
    """A convolution with E sets of weights; norms behind it are shared.

    Args:
        ndim: 1, 2 or 3.
        inputs: channels.
        outputs: channels of each expert.
        count: E.
        kernel, stride, padding: of the convolution.
    """

    def __init__(
        self,
        ndim: int,
        inputs: int,
        outputs: int,
        count: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.count, self.stride, self.padding = count, stride, padding
        wide = cast(nn.Conv2d, convolution(ndim, inputs, count * outputs, kernel, bias=False))
        self.weight = wide.weight

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Convolve each input with its expert.

        Args:
            x: (B, C, *size).
            gate: (B,) int64, the expert of each input: only its weights are used. Or (B, E), by
                `one_hot`: all experts run, so that a gradient reaches the scores.

        Returns:
            (B, outputs, *size).
        """
        if gate.dtype.is_floating_point:
            every = self._convolve(x, self.weight).unflatten(1, (self.count, -1))
            return torch.einsum("be,beo...->bo...", gate.to(every.dtype), every)
        weights = self.weight.chunk(self.count)
        if self.count == 1 or len(x) == 1:
            return self._convolve(x, weights[int(gate[0]) if self.count > 1 else 0])
        order = gate.argsort(stable=True)
        sizes = torch.bincount(gate, minlength=self.count).tolist()
        parts = zip(x[order].split(sizes), weights, strict=True)
        outputs = torch.cat([self._convolve(part, w) for part, w in parts if len(part)])
        return outputs[order.argsort()]

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, stride=self.stride, padding=self.padding)


def one_hot(scores: Tensor) -> Tensor:
    """(B, E) of 0 and 1 at the largest score; its gradient goes to the scores unchanged."""
    hard = F.one_hot(scores.argmax(dim=-1), scores.shape[-1]).to(scores.dtype)
    return hard + (scores - scores.detach())


class InputRouter(nn.Module):
    """A small residual network from the input to scores of the experts.

    As ResNet-20 for CIFAR (He et al. 2015, arXiv 1512.03385): three stages, each narrowing by 2 and
    doubling the channels, with shortcuts without weights.

    Args:
        ndim: 1, 2 or 3.
        inputs: channels.
        count: E.
        width: channels of the first stage.
        blocks: of each stage.
    """

    def __init__(
        self, ndim: int, inputs: int, count: int, width: int = 16, blocks: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = convolution(ndim, inputs, width, 3, padding=1, bias=False)
        self.bn1 = normalisation("batch", ndim, width)
        widths = (width, 2 * width, 4 * width)
        before = width
        for stage, channels in enumerate(widths, start=1):
            row = []
            for number in range(blocks):
                stride = 2 if stage > 1 and number == 0 else 1
                row.append(_RouterBlock(ndim, before, channels, stride))
                before = channels
            setattr(self, f"layer{stage}", nn.Sequential(*row))
        self.pool = adaptive_avg_pool(ndim)
        self.fc = nn.Linear(before, count)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, E)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = getattr(self, f"layer{stage}")(x)
        found: Tensor = self.fc(self.pool(x).flatten(1))
        return found


class _RouterBlock(nn.Module):
    def __init__(self, ndim: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.ndim, self.stride, self.added = ndim, stride, outputs - inputs
        self.conv1 = convolution(ndim, inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = normalisation("batch", ndim, outputs)
        self.conv2 = convolution(ndim, outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = normalisation("batch", ndim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        """Every stride-th point, new channels zero, half of them on either side."""
        if self.stride > 1:
            for axis in range(-self.ndim, 0):
                at = torch.arange(0, x.shape[axis], self.stride, device=x.device)
                x = x.index_select(axis, at)
        before = self.added // 2
        return F.pad(x, (*[0] * 2 * self.ndim, before, self.added - before))

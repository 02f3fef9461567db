# SPDX-License-Identifier: Apache-2.0
"""Detail-enhanced convolution: differences of pixels learnt beside their sum, at the cost of one.

Chen et al. 2024, *DEA-Net: Single image dehazing based on detail-enhanced convolution and
content-guided attention* (arXiv 2301.04805), section III-A. Five branches of 3x3 kernels in two
dimensions: plain; central (the kernel's values sum to zero); one difference along each axis (first
slice against last); angular (the kernel minus itself turned by one step around its ring). All are
linear, so the kernels are added and one convolution is done, in training too.

In one dimension there is no ring, and so no angular branch; in three there are three differences
and three angular branches, one for each plane of axes, turned slice by slice. Both are ours: the
paper has two dimensions only.
"""

import math
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .nd import convolution, convolve

TURNED = (3, 0, 1, 6, 4, 2, 7, 8, 5)
"""Which tap of a 3x3 kernel, counted in rows, comes to each place when its ring turns one step."""


class DetailConv(nn.Module):
    """(B, in_channels, *size) -> (B, out_channels, *size), kernel 3, stride 1.

    Args:
        in_channels, out_channels: of input and output.
        ndim: 1, 2 or 3.

    Attributes:
        weights: (O, I, 3, ...) of the plain, the central and each angular branch, planes of axes in
            the order (0, 1), (0, 2), (1, 2).
        differences: (O, I, 3, ...), one axis less, for each axis in order.
        bias: (branches, O): plain, central, differences, angular.
    """

    def __init__(self, in_channels: int, out_channels: int, *, ndim: int = 2) -> None:
        super().__init__()
        if ndim not in (1, 2, 3):
            raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")
        self.in_channels, self.out_channels, self.ndim = in_channels, out_channels, ndim
        self.planes = list(combinations(range(ndim), 2))
        shape = (out_channels, in_channels)
        self.weights = nn.ParameterList(
            torch.empty(*shape, *[3] * ndim) for _ in range(2 + len(self.planes))
        )
        self.differences = nn.ParameterList(
            torch.empty(*shape, *[3] * (ndim - 1)) for _ in range(ndim)
        )
        self.bias = nn.Parameter(torch.empty(len(self.weights) + ndim, out_channels))
        for weight in (*self.weights, *self.differences):
            nn.init.kaiming_uniform_(weight.view(*shape, -1), a=math.sqrt(5))
        nn.init.uniform_(self.bias, *_interval(in_channels * 3**ndim))

    def kernels(self) -> list[Tensor]:
        """Kernel of each branch, (O, I, 3, ...): plain, central, differences, angular."""
        plain, central, *angular = self.weights
        axes = tuple(range(2, 2 + self.ndim))
        centre = F.pad(central.sum(axes, keepdim=True), [1] * (2 * self.ndim))
        found = [plain, central - centre]
        for axis, weight in enumerate(self.differences):
            found.append(torch.stack((weight, torch.zeros_like(weight), -weight), dim=2 + axis))
        for plane, weight in zip(self.planes, angular, strict=True):
            found.append(weight - _turn(weight, plane))
        return found

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the one convolution that all branches together are."""
        kernel = torch.stack(self.kernels()).sum(dim=0)
        return kernel, self.bias.sum(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, out_channels, *size)."""
        return convolve(x, *self.folded(), padding=1)

    def fuse(self) -> nn.Module:
        """The same function as torch's convolution."""
        kernel, bias = self.folded()
        conv = convolution(
            self.ndim, self.in_channels, self.out_channels, 3, padding=1, device="meta"
        )
        conv.weight = nn.Parameter(kernel.detach())
        conv.bias = nn.Parameter(bias.detach())
        return conv.train(self.training)


def _turn(weight: Tensor, plane: tuple[int, int]) -> Tensor:
    """The ring of each slice along the plane turned by one step."""
    ends = (-2, -1)
    moved = weight.movedim((2 + plane[0], 2 + plane[1]), ends)
    turned: Tensor = moved.flatten(-2)[..., list(TURNED)].unflatten(-1, (3, 3))
    return turned.movedim(ends, (2 + plane[0], 2 + plane[1]))


def _interval(fan_in: int) -> tuple[float, float]:
    bound = 1 / math.sqrt(fan_in)
    return -bound, bound

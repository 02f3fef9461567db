# SPDX-License-Identifier: Apache-2.0
"""The network as one would first write it from the paper, to measure the fast path against.

Tensors lie channels-first; a layer norm is a chain of mean, variance, difference and products over
axis 1; the time's shift and scale and the block's beta and gamma are operations of their own; the
time embedding is computed anew in each step.
"""

import copy

import torch
from torch import Tensor, nn

from fieldfare.remote_sensing.super_resolution.networks.ediffsr import (
    LAYER_NORM_EPS,
    ChannelLayerNorm,
    EDiffSR,
    EfficientActivationBlock,
)


class PlainLayerNorm(nn.Module):
    """`ChannelLayerNorm` spelled out; (B, C, H, W) to the same shape."""

    def __init__(self, norm: ChannelLayerNorm) -> None:
        super().__init__()
        self.g = norm.g

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)
        variance = x.var(dim=1, unbiased=False, keepdim=True)
        return (x - mean) * (variance + LAYER_NORM_EPS).rsqrt() * self.g


def plain_form(network: EDiffSR) -> EDiffSR:
    """A copy of the network, channels-first, with its layer norms spelled out.

    The rest of the plain formulation is what `EDiffSR.forward` does.
    """
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for block in plain.modules():
        if isinstance(block, EfficientActivationBlock):
            block.norm1, block.norm2 = PlainLayerNorm(block.norm1), PlainLayerNorm(block.norm2)
    return plain

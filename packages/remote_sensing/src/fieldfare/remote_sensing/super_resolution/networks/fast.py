# SPDX-License-Identifier: Apache-2.0
"""A float32 inference path of the network for processors, equal to `network.EDiffSR` within 2e-6.

The plain form is bound by memory traffic: at full resolution a 1x1 convolution costs no more than
reading its input. So tensors lie channels-last, the work between two global averages is done strip
by strip while it is in cache, and everything that is not the image is worked out beforehand:

- the gain of the layer norm, the time's scale and its shift become weight and bias of one native
  layer norm; they depend on t alone and are kept for each time of the schedule;
- beta and gamma are folded into the last 1x1 convolution of each half of a block;
- the channel attention of a block multiplies the weights of the next 1x1 convolution, not pixels;
- 1x1 convolutions are matrix products that add the residual in place.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ediffsr import (
    LAYER_NORM_EPS,
    ChannelAttention,
    EDiffSR,
    EfficientActivationBlock,
    ResidualChannelAttentionBlock,
)

STRIP_BYTES = 1 << 20
"""A strip's widest tensor (2C channels) is about this large, so that it stays in cache."""


@dataclass(frozen=True)
class _Modulation:
    """Weights and biases (C,) of a block's two layer norms at one time."""

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor


class _Block:
    """One activation block on a contiguous (N, H, W, C) tensor, changed in place."""

    def __init__(self, block: EfficientActivationBlock) -> None:
        self.mlp = block.mlp
        self.gain1, self.gain2 = block.norm1.g.flatten(), block.norm2.g.flatten()
        self.expand1 = _affine(block.conv1)
        self.depthwise = (
            block.conv2.weight.contiguous(memory_format=torch.channels_last),
            _bias(block.conv2),
        )
        self.attention = _affine(cast(nn.Conv2d, block.sca[1]))
        self.project1 = _affine(block.conv3, block.beta)
        self.expand2 = _affine(block.conv4)
        self.project2 = _affine(block.conv5, block.gamma)

    def modulation(self, time: Tensor) -> _Modulation:
        shift1, scale1, shift2, scale2 = self.mlp(time)[0].chunk(4)
        return _Modulation(self.gain1 * (scale1 + 1), shift1, self.gain2 * (scale2 + 1), shift2)

    def __call__(self, x: Tensor, modulation: _Modulation) -> None:
        for image in x:
            self._image(image, modulation)

    def _image(self, x: Tensor, modulation: _Modulation) -> None:
        _, width, channels = x.shape
        strip = max(1, STRIP_BYTES * torch.get_num_threads() // (8 * channels * width))
        gated, mean = self._mix(x, strip, modulation)
        weight, bias = self.attention
        scale = torch.addmv(bias, weight.t(), mean)
        (weight1, bias1), (weight2, bias2) = self.project1, self.project2
        weight1 = weight1 * scale[:, None]
        weight, bias = self.expand2
        for rows, mixed in zip(
            x.view(-1, channels).split(strip * width),
            gated.view(-1, channels).split(strip * width),
            strict=True,
        ):
            rows.addmm_(mixed, weight1).add_(bias1)
            normal = F.layer_norm(
                rows, (channels,), modulation.weight2, modulation.bias2, LAYER_NORM_EPS
            )
            wide = torch.addmm(bias, normal, weight)
            torch.mul(wide[:, :channels], wide[:, channels:], out=normal)
            rows.addmm_(normal, weight2).add_(bias2)

    def _mix(self, x: Tensor, strip: int, modulation: _Modulation) -> tuple[Tensor, Tensor]:
        """The gate of the depthwise convolution, (H, W, C), and its mean over pixels, (C,).

        `wide` holds the rows of one strip and one more each way; the two that the next strip needs
        again are moved to its front instead of being computed twice.
        """
        height, width, channels = x.shape
        gated, total = torch.empty_like(x), x.new_zeros(channels)
        wide = x.new_zeros(min(strip, height) + 2, width, 2 * channels)
        self._expand(x[:1], wide[1:2], modulation)
        for top in range(0, height, strip):
            bottom = min(top + strip, height)
            count = bottom - top
            self._expand(x[top + 1 : bottom + 1], wide[2 : count + 2], modulation)
            if bottom == height:
                wide[count + 1].zero_()
            image = wide[None, : count + 2].permute(0, 3, 1, 2)
            image = F.conv2d(image, *self.depthwise, padding=(0, 1), groups=2 * channels)
            mixed = image[0].permute(1, 2, 0)
            torch.mul(mixed[..., :channels], mixed[..., channels:], out=gated[top:bottom])
            total += gated[top:bottom].sum(dim=(0, 1))
            for row in range(2):
                wide[row] = wide[count + row]
        return gated, total / (height * width)

    def _expand(self, x: Tensor, wide: Tensor, modulation: _Modulation) -> None:
        """Layer norm and first 1x1 convolution of the rows of x, into the first rows of `wide`."""
        rows = x.reshape(-1, x.shape[-1])
        normal = F.layer_norm(
            rows, rows.shape[-1:], modulation.weight1, modulation.bias1, LAYER_NORM_EPS
        )
        weight, bias = self.expand1
        torch.addmm(bias, normal, weight, out=wide[: len(x)].view(-1, wide.shape[-1]))


class FastEDiffSR:
    """The frozen network on a processor.

    It reads the weights when built, so build it anew after changing them. Only the published CPEM
    is supported.

    Args:
        network: float32, on the CPU.
    """

    def __init__(self, network: EDiffSR) -> None:
        if network.config.cpem != "published":
            raise ValueError(
                f"the fast path knows only the published CPEM, got {network.config.cpem!r}"
            )
        self.network = network
        with torch.inference_mode():
            self.encoders = [_blocks(stack) for stack in network.encoders]
            self.middle = _blocks(network.middle_blks)
            self.decoders = [_blocks(stack) for stack in network.decoders]
            self.ups = [_shuffled_rows(cast(nn.Sequential, up)[0]) for up in network.ups]
            self._modulations: dict[float, dict[_Block, _Modulation]] = {}

    def modulations(self, t: float) -> dict[_Block, _Modulation]:
        """Layer-norm weights of all blocks at time t; computed once a time."""
        if t not in self._modulations:
            time = self.network.time_mlp(torch.tensor([t], dtype=torch.float32))
            stacks = [*self.encoders, self.middle, *self.decoders]
            self._modulations[t] = {
                block: block.modulation(time) for stack in stacks for block in stack
            }
        return self._modulations[t]

    @torch.inference_mode()
    def __call__(self, x: Tensor, condition: Tensor, t: float) -> Tensor:
        """As `EDiffSR.forward` with one time for the whole batch."""
        network, modulations = self.network, self.modulations(float(t))
        height, width = x.shape[-2:]
        both = torch.cat([x - condition, condition], dim=1)
        both = F.pad(both, (0, -width % network.multiple, 0, -height % network.multiple))
        y = network.intro(both.contiguous(memory_format=torch.channels_last))
        rcab = cast(ResidualChannelAttentionBlock, network.enhance).rcab
        enhanced = rcab[:3](y)
        attention = cast(ChannelAttention, rcab[3]).attention(enhanced)
        image = y.mul_(2).addcmul_(enhanced, attention).permute(0, 2, 3, 1).contiguous()
        skips = []
        for stack, down in zip(self.encoders, network.downs, strict=True):
            for block in stack:
                block(image, modulations[block])
            skips.append(image)
            image = down(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
        for block in self.middle:
            block(image, modulations[block])
        for stack, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            image = _shuffle_onto(skip, F.linear(image, up))
            for block in stack:
                block(image, modulations[block])
        out: Tensor = network.ending(image.permute(0, 3, 1, 2))
        return out[..., :height, :width].contiguous()


def _blocks(stack: nn.Module) -> list[_Block]:
    return [_Block(cast(EfficientActivationBlock, block)) for block in stack.children()]


def _bias(convolution: nn.Conv2d) -> Tensor:
    return cast(Tensor, convolution.bias).detach()


def _affine(convolution: nn.Conv2d, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution, its outputs times `factor`, as matrix (I, O) and bias (O,)."""
    weight, bias = convolution.weight.detach().flatten(1), _bias(convolution)
    if factor is not None:
        weight, bias = weight * factor.view(-1, 1), bias * factor.flatten()
    return weight.t().contiguous(), bias


def _shuffled_rows(convolution: nn.Module) -> Tensor:
    """Weight (4C, I, 1, 1) with outputs grouped by sub-pixel: (2 x 2 x C, I)."""
    matrix = cast(nn.Conv2d, convolution).weight.detach().flatten(1)
    return matrix.view(-1, 2, 2, matrix.shape[1]).permute(1, 2, 0, 3).flatten(0, 2).contiguous()


def _shuffle_onto(skip: Tensor, y: Tensor) -> Tensor:
    """Add the pixel shuffle of y (N, H, W, 2 x 2 x C) to skip (N, 2H, 2W, C) in place."""
    n, height, width, _ = y.shape
    channels = skip.shape[-1]
    subpixels = y.view(n, height, width, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
    skip.view(n, height, 2, width, 2, channels).add_(subpixels)
    return skip

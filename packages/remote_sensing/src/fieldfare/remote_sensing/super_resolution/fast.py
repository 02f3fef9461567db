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

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import LAYER_NORM_EPS, EDiffSR, EfficientActivationBlock

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
        self.channels = self.gain1.numel()
        self.expand1 = _matrix(block.conv1.weight).t().contiguous(), block.conv1.bias
        self.depthwise = (
            block.conv2.weight.contiguous(memory_format=torch.channels_last),
            block.conv2.bias,
        )
        self.attention = _matrix(block.sca[1].weight), block.sca[1].bias
        beta, gamma = block.beta.flatten(), block.gamma.flatten()
        self.project1 = (_matrix(block.conv3.weight) * beta[:, None]).t().contiguous()
        self.project1_bias = block.conv3.bias * beta
        self.expand2 = _matrix(block.conv4.weight).t().contiguous(), block.conv4.bias
        self.project2 = (_matrix(block.conv5.weight) * gamma[:, None]).t().contiguous()
        self.project2_bias = block.conv5.bias * gamma

    def modulation(self, time: Tensor) -> _Modulation:
        shift1, scale1, shift2, scale2 = self.mlp(time)[0].chunk(4)
        return _Modulation(
            self.gain1 * (scale1 + 1), shift1, self.gain2 * (scale2 + 1), shift2
        )

    def __call__(self, x: Tensor, modulation: _Modulation) -> None:
        for image in x:
            self._image(image, modulation)

    def _image(self, x: Tensor, modulation: _Modulation) -> None:
        height, width, channels = x.shape
        strip = max(1, STRIP_BYTES * torch.get_num_threads() // (8 * channels * width))
        gated = torch.empty_like(x)
        for top in range(0, height, strip):
            bottom = min(top + strip, height)
            gated[top:bottom] = self._mix(x, top, bottom, modulation)
        weight, bias = self.attention
        scale = torch.addmv(bias, weight, gated.view(-1, channels).mean(dim=0))
        project = self.project1 * scale[:, None]
        for rows, mixed in zip(
            x.view(-1, channels).split(strip * width),
            gated.view(-1, channels).split(strip * width),
            strict=True,
        ):
            rows.addmm_(mixed, project).add_(self.project1_bias)
            normal = F.layer_norm(
                rows, (channels,), modulation.weight2, modulation.bias2, LAYER_NORM_EPS
            )
            wide = torch.addmm(self.expand2[1], normal, self.expand2[0])
            torch.mul(wide[:, :channels], wide[:, channels:], out=normal)
            rows.addmm_(normal, self.project2).add_(self.project2_bias)

    def _mix(self, x: Tensor, top: int, bottom: int, modulation: _Modulation) -> Tensor:
        """Gate of the depthwise convolution for rows top to bottom; reads one row more each way."""
        height, width, channels = x.shape
        first, last = max(top - 1, 0), min(bottom + 1, height)
        rows = x[first:last].reshape(-1, channels)
        normal = F.layer_norm(
            rows, (channels,), modulation.weight1, modulation.bias1, LAYER_NORM_EPS
        )
        wide = torch.addmm(self.expand1[1], normal, self.expand1[0])
        image = wide.view(1, last - first, width, 2 * channels).permute(0, 3, 1, 2)
        image = F.conv2d(image, *self.depthwise, padding=1, groups=2 * channels)
        mixed = image[0].permute(1, 2, 0)[top - first : bottom - first]
        return mixed[..., :channels] * mixed[..., channels:]


class FastEDiffSR:
    """The frozen network on a processor.

    Takes a copy of nothing: it reads the network's weights when built, so build it anew after
    changing them. Only the published CPEM is supported.

    Args:
        network: float32, on the CPU.
    """

    def __init__(self, network: EDiffSR) -> None:
        if network.config.cpem != "published":
            raise ValueError("the fast path knows only the published CPEM")
        self.network = network
        with torch.inference_mode():
            self.encoders = [[_Block(b) for b in stack] for stack in network.encoders]
            self.middle = [_Block(b) for b in network.middle_blks]
            self.decoders = [[_Block(b) for b in stack] for stack in network.decoders]
            self.ups = [_shuffled_rows(up[0].weight) for up in network.ups]
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
        enhanced = network.enhance.rcab[:3](y)
        attention = network.enhance.rcab[3].attention(enhanced)
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
        out = network.ending(image.permute(0, 3, 1, 2))
        return out[..., :height, :width].contiguous()


def _matrix(weight: Tensor) -> Tensor:
    """A 1x1 convolution's weight (O, I, 1, 1) as a matrix (O, I)."""
    return weight.detach().flatten(1)


def _shuffled_rows(weight: Tensor) -> Tensor:
    """Reorder a (4C, I, 1, 1) weight so that its outputs are grouped by sub-pixel: (2 x 2 x C, I)."""
    matrix = _matrix(weight)
    return matrix.view(-1, 2, 2, matrix.shape[1]).permute(1, 2, 0, 3).flatten(0, 2).contiguous()


def _shuffle_onto(skip: Tensor, y: Tensor) -> Tensor:
    """Add the pixel shuffle of y (N, H, W, 2 x 2 x C) to skip (N, 2H, 2W, C) in place."""
    n, height, width, _ = y.shape
    channels = skip.shape[-1]
    subpixels = y.view(n, height, width, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
    skip.view(n, height, 2, width, 2, channels).add_(subpixels)
    return skip

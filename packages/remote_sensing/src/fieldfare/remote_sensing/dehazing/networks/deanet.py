# SPDX-License-Identifier: Apache-2.0
"""DEA-Net: dehazing with detail-enhanced convolution and content-guided attention.

Chen et al. 2024, *DEA-Net: Single image dehazing based on detail-enhanced convolution and
content-guided attention*, IEEE Transactions on Image Processing (arXiv 2301.04805), figure 2: a U
of three levels at strides 1, 2 and 4, whose skips pass through content-guided fusion.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.blocks import ContentGuidedAttention, ContentGuidedFusion, DetailConv

STRIDE = 4
"""Of the deepest level in pixels."""

LEAST_SIDE = 4 * STRIDE
"""The attention reflects 3 pixels of the deepest level, of which there must be 4 then; times
`DEANetConfig.reduction`."""

SMOOTH = 5
"""Side of the mean over the scattering head's thickness, in reduced pixels."""

STEEPNESS, THICKEST = 4.0, 3.0

HEADS = ("image", "scattering")


@dataclass(frozen=True)
class DEANetConfig:
    """Shape of the network; the defaults are the published one.

    Attributes:
        channels: of input and output.
        width: of the first level; the others have two and four times as many.
        blocks: of first, second and third level, and of the second and first on the way up.
        head: what the last convolution gives. `image`: the clear image, as published.
            `scattering`: optical thickness tau >= 0 and light A of the haze in each band, and the
            scattering model x = J t + A (1 - t), t = exp(-tau), is solved for the clear image J. So
            detail comes from the input alone and contrast never falls, where a network that may
            draw the image blurs what it is not sure of. A is one for the image, tau smooth.
        reduction: of the scattering head: the network sees squares of so many pixels as one pixel
            of more channels, and thickness is enlarged again. Haze is smooth, so little is lost,
            and the work is less by the square.
    """

    channels: int = 3
    width: int = 32
    blocks: tuple[int, int, int, int, int] = (4, 4, 8, 4, 4)
    head: str = "image"
    reduction: int = 1

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {HEADS}, got {self.head!r}")
        if self.reduction < 1 or (self.head == "image" and self.reduction > 1):
            raise ValueError(f"reduction must be 1 for this head, or more, got {self.reduction}")
        if len(self.blocks) != 5:
            raise ValueError(f"blocks must be 5 numbers, got {self.blocks}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self) | {"blocks": list(self.blocks)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DEANetConfig":
        """Read what `to_dict` wrote."""
        return cls(**{**values, "blocks": tuple(values["blocks"])})


class DetailBlock(nn.Module):
    """Detail-enhanced convolution and a plain one, each with a skip; (B, C, H, W) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail: nn.Module = DetailConv(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        """Without the outer skip."""
        found: Tensor = self.conv(F.relu(self.detail(x)) + x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return self.features(x) + x


class AttentiveBlock(DetailBlock):
    """A detail block whose features are weighted by content-guided attention (DEAB)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__(channels)
        self.attention: nn.Module = ContentGuidedAttention(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        found = self.features(x)
        weighted: Tensor = found * self.attention(found) + x
        return weighted


class DEANet(nn.Module):
    """(B, channels, H, W) hazy in [0, 1] -> clear, not clipped; each side at least `LEAST_SIDE`.

    Sides that `STRIDE` does not divide are reflected on at the right and bottom and cut again.
    """

    def __init__(self, config: DEANetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DEANetConfig()
        one, two, four = config.width, 2 * config.width, 4 * config.width
        first, second, third, fourth, fifth = config.blocks
        inputs = config.channels * config.reduction**2
        self.down1 = nn.Conv2d(inputs, one, 3, padding=1)
        self.encode1 = _details(one, first)
        self.down2 = nn.Sequential(nn.Conv2d(one, two, 3, stride=2, padding=1), nn.ReLU())
        self.enter2 = nn.Conv2d(two, two, 3, padding=1)
        self.encode2 = _details(two, second)
        self.down3 = nn.Sequential(nn.Conv2d(two, four, 3, stride=2, padding=1), nn.ReLU())
        self.enter3 = nn.Conv2d(four, four, 3, padding=1)
        self.middle = nn.Sequential(*(AttentiveBlock(four) for _ in range(third)))
        self.mix1 = ContentGuidedFusion(four, reduction=8)
        self.up1 = nn.Sequential(_enlarging(four, two), nn.ReLU())
        self.decode2 = _details(two, fourth)
        self.mix2 = ContentGuidedFusion(two, reduction=4)
        self.up2 = nn.Sequential(_enlarging(two, one), nn.ReLU())
        self.decode1 = _details(one, fifth)
        outputs = config.channels * (2 if config.head == "scattering" else 1)
        self.end = nn.Conv2d(one, outputs, 3, padding=1)

    @property
    def stride(self) -> int:
        """Of the deepest level in pixels."""
        return STRIDE * self.config.reduction

    @property
    def least_side(self) -> int:
        """Of an image in pixels."""
        return LEAST_SIDE * self.config.reduction

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same; raises ValueError for too small an image."""
        height, width = x.shape[-2:]
        if min(height, width) < self.least_side:
            raise ValueError(f"sides must be at least {self.least_side}, got {height} x {width}")
        padded = F.pad(x, (0, -width % self.stride, 0, -height % self.stride), mode="reflect")
        if self.config.head == "image":
            found: Tensor = self.end(self._features(padded))[..., :height, :width]
            return found
        times = self.config.reduction
        maps = self.end(self._features(F.pixel_unshuffle(padded, times))).float()
        raw, light = maps.chunk(2, dim=1)
        light = torch.sigmoid(light.mean(dim=(2, 3), keepdim=True))
        raw = F.avg_pool2d(F.pad(raw, [SMOOTH // 2] * 4, mode="replicate"), SMOOTH, stride=1)
        if times > 1:
            raw = F.interpolate(raw, scale_factor=times, mode="bilinear")
        thickness = thickness_of(raw[..., :height, :width])
        return x + (thickness.exp() - 1) * (x - light)

    def _features(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H, W), both reduced."""
        at2 = self.down2(self.encode1(self.down1(x)))
        at4 = self.down3(self.encode2(self.enter2(at2)))
        deep = self.mix1(at4, self.middle(self.enter3(at4)))
        half = self.mix2(at2, self.decode2(self.up1(deep)))
        found: Tensor = self.decode1(self.up2(half))
        return found


def thickness_of(raw: Tensor) -> Tensor:
    """Optical thickness of what the scattering head gives: a softplus, from 0 to `THICKEST`."""
    return F.softplus(STEEPNESS * raw).clamp(max=THICKEST)


def start_almost_clear(network: DEANet) -> None:
    """Start from a thin haze of light grey everywhere, for the scattering head."""
    with torch.no_grad():
        network.end.weight.zero_()
        assert network.end.bias is not None
        thickness, light = network.end.bias.chunk(2)
        thickness.fill_(-0.4)
        light.fill_(1.5)


def _details(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(DetailBlock(channels) for _ in range(count)))


def _enlarging(channels: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, outputs, 3, stride=2, padding=1, output_padding=1)

# SPDX-License-Identifier: Apache-2.0
"""The noise predictor of EDiffSR.

EDiffSR: An Efficient Diffusion Probabilistic Model for Remote Sensing Image Super-Resolution,
Xiao et al. 2023 (arXiv 2310.19288). Module and parameter names are those of the published
checkpoints, so a published state dict loads without renaming.

What differs between paper and published code is in docs/ediffsr.md: the conditional prior
enhancement module (CPEM) of the paper's figure is `cpem="folded"`, the published one is
`cpem="published"` and is the default.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class EDiffSRConfig:
    """Shape of the network; the defaults are the published model (20,403,719 parameters).

    Attributes:
        channels: bands of the image, 3 in the paper.
        width: channels at full resolution, doubled at each level; even, at least 16.
        encoder_blocks: blocks a level before each halving.
        middle_blocks: blocks at the coarsest level.
        decoder_blocks: blocks a level after each doubling, coarsest first.
        scale: super-resolution factor.
        cpem: `published` (one channel-attention block on the stem's features) or `folded` (the
            paper's figure: raw low-resolution image and space-to-depth noise).
    """

    channels: int = 3
    width: int = 64
    encoder_blocks: tuple[int, ...] = (14, 1, 1, 1)
    middle_blocks: int = 1
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    scale: int = 4
    cpem: str = "published"

    def __post_init__(self) -> None:
        if self.width < 16 or self.width % 2:
            raise ValueError(f"width must be even and at least 16, got {self.width}")
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            raise ValueError(
                f"as many decoder as encoder levels are needed, got "
                f"{len(self.encoder_blocks)} and {len(self.decoder_blocks)}"
            )
        if self.cpem not in ("published", "folded"):
            raise ValueError(f"cpem must be 'published' or 'folded', got {self.cpem!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EDiffSRConfig":
        """Read what `to_dict` wrote (lists become tuples)."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    """Embed times as sines and cosines of geometrically spaced frequencies.

    Args:
        t: (B,), time in steps, 0 to T; need not be whole.
        dim: even length of the embedding.

    Returns:
        (B, dim), sines first, then cosines.
    """
    half = dim // 2
    rate = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / (half - 1)))
    phase = t.float()[:, None] * rate[None, :]
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def simple_gate(x: Tensor) -> Tensor:
    """Multiply the first half of axis 1 by the second: (B, 2C, ...) to (B, C, ...)."""
    first, second = x.chunk(2, dim=1)
    return first * second


def channel_layer_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Normalise each pixel over its channels; (B, C, H, W) and gain (1, C, 1, 1), no bias.

    The eps is 1e-5 in every precision (the published code takes 1e-3 below float32).
    """
    pixels = x.permute(0, 2, 3, 1)
    normalised = F.layer_norm(pixels, pixels.shape[-1:], gain.flatten(), None, LAYER_NORM_EPS)
    return normalised.permute(0, 3, 1, 2)


class SinusoidalEmbedding(nn.Module):
    """`sinusoidal_embedding` of fixed length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        return sinusoidal_embedding(t, self.dim)


class SimpleGate(nn.Module):
    """`simple_gate`: halves axis 1."""

    def forward(self, x: Tensor) -> Tensor:
        return simple_gate(x)


class ChannelLayerNorm(nn.Module):
    """Holds the gain of `channel_layer_norm`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return channel_layer_norm(x, self.g)


class EfficientActivationBlock(nn.Module):
    """EAB: a NAFNet block whose two layer norms are shifted and scaled by the time.

    x (B, C, H, W) and the time vector (B, 4 width) give (B, C, H, W). Source: NAFNet, Chen et al.
    2022 (arXiv 2204.04676), conditioned as in arXiv 2310.19288, section III-C.
    """

    def __init__(self, channels: int, time_dim: int) -> None:
        super().__init__()
        double = 2 * channels
        self.mlp = nn.Sequential(SimpleGate(), nn.Linear(time_dim // 2, 4 * channels))
        self.norm1 = ChannelLayerNorm(channels)
        self.conv1 = nn.Conv2d(channels, double, 1)
        self.conv2 = nn.Conv2d(double, double, 3, padding=1, groups=double)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = ChannelLayerNorm(channels)
        self.conv4 = nn.Conv2d(channels, double, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        modulation = self.mlp(time)[:, :, None, None].chunk(4, dim=1)
        shift_attention, scale_attention, shift_ffn, scale_ffn = modulation
        y = self.norm1(x) * (scale_attention + 1) + shift_attention
        y = simple_gate(self.conv2(self.conv1(y)))
        y = self.conv3(y * self.sca(y))
        x = x + self.beta * y
        y = self.norm2(x) * (scale_ffn + 1) + shift_ffn
        y = self.conv5(simple_gate(self.conv4(y)))
        x = x + self.gamma * y
        return x


class BlockStack(nn.ModuleList):
    """Blocks of one level, applied in turn with the same time vector."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for block in self:
            x = block(x, time)
        return x


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation with reduction 16; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 16, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 16, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.attention(x)
        return x * weights


class ResidualChannelAttentionBlock(nn.Module):
    """RCAB (arXiv 1807.02758): x plus two convolutions under channel attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rcab = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            ChannelAttention(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.rcab(x)
        return x + residual


class FoldedPriorEnhancement(nn.Module):
    """CPEM as drawn in the paper: raw low-resolution image and folded noise at low resolution.

    The state's offset from the condition is folded by space-to-depth, joined with the raw
    low-resolution image, enhanced by an RCAB and unfolded to (B, width, H, W). Our reading of the
    figure of arXiv 2310.19288; no published weights exist for it.
    """

    def __init__(self, channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.embed = nn.Conv2d(channels * (scale**2 + 1), width, 3, padding=1)
        self.enhance = ResidualChannelAttentionBlock(width)
        self.unfold = nn.Sequential(nn.Conv2d(width, width * scale**2, 1), nn.PixelShuffle(scale))

    def forward(self, offset: Tensor, low_resolution: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(offset, self.scale)
        embedded = self.embed(torch.cat([folded, low_resolution], dim=1))
        prior: Tensor = self.unfold(self.enhance(embedded))
        return prior


class EDiffSR(nn.Module):
    """U-shaped network of activation blocks that predicts the noise (or another target) of x_t.

    The published code calls it ConditionalNAFNet.
    """

    def __init__(self, config: EDiffSRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EDiffSRConfig()
        width, time_dim = config.width, 4 * config.width
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(width),
            nn.Linear(width, 2 * time_dim),
            SimpleGate(),
            nn.Linear(time_dim, time_dim),
        )
        self.intro = nn.Conv2d(2 * config.channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, config.channels, 3, padding=1)
        if config.cpem == "published":
            self.enhance: nn.Module = ResidualChannelAttentionBlock(width)
        else:
            self.enhance = FoldedPriorEnhancement(config.channels, width, config.scale)

        def stack(blocks: int, channels: int) -> BlockStack:
            return BlockStack(EfficientActivationBlock(channels, time_dim) for _ in range(blocks))

        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        channels = width
        for blocks in config.encoder_blocks:
            self.encoders.append(stack(blocks, channels))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = stack(config.middle_blocks, channels)
        for blocks in config.decoder_blocks:
            self.ups.append(
                nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))
            )
            channels //= 2
            self.decoders.append(stack(blocks, channels))

    @property
    def multiple(self) -> int:
        """Height and width are zero-padded on the right and bottom to a multiple of this."""
        return int(2 ** len(self.encoders))

    def forward(
        self, x: Tensor, condition: Tensor, t: Tensor, low_resolution: Tensor | None = None
    ) -> Tensor:
        """Predict the training target of the state.

        Args:
            x: (B, C, H, W), state x_t in the unit of the image, about 0 to 1.
            condition: (B, C, H, W), mu: the low-resolution image enlarged bicubically, 0 to 1.
            t: scalar, (1,) or (B,), time in steps, 1 to T.
            low_resolution: (B, C, ceil(H / scale), ceil(W / scale)), 0 to 1; the folded CPEM
                needs it, the published one does not look at it.

        Returns:
            (B, C, H, W): the predicted noise for the published models.

        Raises:
            ValueError: the folded CPEM was given no low_resolution.
        """
        height, width = x.shape[-2:]
        time = self.time_mlp(torch.as_tensor(t, device=x.device).reshape(-1))
        both = torch.cat([x - condition, condition], dim=1)
        both = F.pad(both, (0, -width % self.multiple, 0, -height % self.multiple))
        x = self.intro(both)
        if self.config.cpem == "published":
            x = x + self.enhance(x)
        else:
            x = x + self._folded_prior(both, low_resolution)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x, time)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x, time)
        for decoder, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            x = decoder(up(x) + skip, time)
        x = self.ending(x)
        return x[..., :height, :width]

    def _folded_prior(self, both: Tensor, low_resolution: Tensor | None) -> Tensor:
        if low_resolution is None:
            raise ValueError("the folded CPEM needs low_resolution, got None")
        scale, (height, width) = self.config.scale, both.shape[-2:]
        offset = F.pad(both[:, : both.shape[1] // 2], (0, -width % scale, 0, -height % scale))
        rows = offset.shape[-2] // scale - low_resolution.shape[-2]
        columns = offset.shape[-1] // scale - low_resolution.shape[-1]
        low = F.pad(low_resolution, (0, columns, 0, rows))
        prior: Tensor = self.enhance(offset, low)
        return prior[..., :height, :width]

# SPDX-License-Identifier: Apache-2.0
"""A residual U-Net with channel attention on its skips and ASPP at its bottom.

After Behzadpour et al. 2025, *Improving brain tumor segmentation with ResUNet, EfficientNet,
channel attention and ASPP* (arXiv 2501.11196), of which only the abstract was at hand: the parts
are theirs; the widths, the dilation rates and the order of the parts are ours. In 2D the encoder is
timm's and sees axial slices; in 3D its place is taken by residual blocks.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldfare.common.blocks import (
    ASPP,
    EfficientChannelAttention,
    SqueezeExcite,
    convolution,
    normalisation,
)
from fieldfare.common.encoders import create_encoder

from .config import NetworkConfig

RATES = (2, 4, 6)
"""The bottom of a slice is about 8 pixels wide: the 6, 12, 18 of photographs would look past its
border."""

_LINEAR = {2: "bilinear", 3: "trilinear"}


class ResUNetASPP(nn.Module):
    """Images (B, modalities, *size) to logits (B, regions, *size), of any size.

    Args:
        config: of the architecture `resunet_aspp`. In 2D `channels` are those of the decoder at
            strides 1, 2, 4, ...; the encoder is used up to twice the last of them: 5 is all of one
            that ends at stride 32. In 3D they are those of encoder and decoder.

    Raises:
        ValueError: no such encoder, or one without a feature at that last stride.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        ndim, norm = config.ndim, "batch" if config.ndim == 2 else config.norm
        widths = config.channels
        self.encoder: nn.Module
        if config.encoder:
            self.encoder = _SliceEncoder(config.encoder, len(config.modalities), len(widths))
            found = self.encoder.channels
        else:
            self.encoder = _BlockEncoder(config)
            found = widths[1:]
        # Level 0 is the input's own resolution, where timm's encoders have no feature.
        skips = (0 if config.encoder else widths[0], *found[:-1])
        self.pyramid = ASPP(
            found[-1], widths[-1], RATES, ndim=ndim, norm=norm, dropout=config.dropout
        )
        below = (*widths[1:], widths[-1])[: len(skips)]
        self.attention = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for width, skip, coarse in zip(widths, skips, below, strict=False):
            self.attention.append(_attention(config.attention, coarse + skip))
            self.decoder.append(ResidualBlock(coarse + skip, width, ndim=ndim, norm=norm))
        levels = len(self.decoder) if config.deep_supervision else 1
        self.heads = nn.ModuleList(
            convolution(ndim, width, len(config.regions), 1) for width in widths[:levels]
        )

    @property
    def stride(self) -> int:
        """Pixels of the input for each of the coarsest level."""
        return 1 << len(self.decoder)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """The logits; in training with deep supervision those of every level, finest first."""
        size = image.shape[2:]
        ends = [(0, -length % self.stride) for length in reversed(size)]
        image = F.pad(image, [number for pair in ends for number in pair])
        *skips, x = self.encoder(image)
        x, maps = self.pyramid(x), []
        for level in reversed(range(len(self.decoder))):
            finer = [side >> level for side in image.shape[2:]]
            x = F.interpolate(x, finer, mode=_LINEAR[x.ndim - 2])
            if skips[level] is not None:
                x = torch.cat([x, _fitted(skips[level], finer)], dim=1)
            x = self.decoder[level](self.attention[level](x))
            if level == 0 or (self.training and self.config.deep_supervision):
                maps.append(self.heads[level](x))
        maps[-1] = maps[-1][(..., *(slice(0, length) for length in size))]
        return maps[::-1] if self.training and self.config.deep_supervision else maps[-1]


class ResidualBlock(nn.Module):
    """(B, channels, *size) -> (B, out_channels, *size); He et al. 2016, arXiv 1512.03385."""

    def __init__(
        self, channels: int, out_channels: int, *, ndim: int, norm: str, stride: int = 1
    ) -> None:
        super().__init__()

        def layer(width: int, kernel: int, step: int) -> nn.Sequential:
            return nn.Sequential(
                convolution(
                    ndim, width, out_channels, kernel, step, padding=kernel // 2, bias=False
                ),
                normalisation(norm, ndim, out_channels),
            )

        self.first, self.second = layer(channels, 3, stride), layer(out_channels, 3, 1)
        self.shortcut = layer(channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, after its activation."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class _SliceEncoder(nn.Module):
    """timm's encoder: features of strides 1, 2, 4, ..., None (of 0 channels) where it has none."""

    def __init__(self, name: str, channels: int, levels: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            offered = create_encoder(name, channels).strides
        wanted = [2 << level for level in range(levels)]
        if wanted[-1] not in offered:
            raise ValueError(
                f"{name}: has features of strides {', '.join(map(str, offered))}; the decoder "
                f"wants one of stride {wanted[-1]}"
            )
        used = sum(stride <= wanted[-1] for stride in offered)
        self.model = create_encoder(name, channels, features=used)
        place = {stride: index for index, stride in enumerate(self.model.strides)}
        self._places = [place.get(stride) for stride in wanted]
        self.channels = tuple(0 if p is None else self.model.channels[p] for p in self._places)

    def forward(self, image: Tensor) -> list[Tensor | None]:
        features = self.model(image)
        return [None, *(None if p is None else features[p] for p in self._places)]


def _fitted(skip: Tensor, size: list[int]) -> Tensor:
    """On the decoder's grid, where an encoder pools without padding."""
    if list(skip.shape[2:]) == size:
        return skip
    return F.interpolate(skip, size, mode=_LINEAR[skip.ndim - 2])


class _BlockEncoder(nn.Module):
    """Residual blocks, each but the first of stride 2."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = (len(config.modalities), *config.channels)
        pairs = itertools.pairwise(widths)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, ndim=config.ndim, norm=config.norm, stride=2 if level else 1)
            for level, (a, b) in enumerate(pairs)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        for block in self.blocks:
            image = block(image)
            features.append(image)
        return features


def _attention(name: str, channels: int) -> nn.Module:
    kinds: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "se": lambda: SqueezeExcite(channels),
        "eca": lambda: EfficientChannelAttention(channels),
    }
    if name not in kinds:
        raise ValueError(f"attention must be one of {tuple(kinds)}, got {name!r}")
    return kinds[name]()

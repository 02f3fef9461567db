# SPDX-License-Identifier: Apache-2.0
"""A U-Net of reversible stages whose branches are mobile inverted bottlenecks.

Pendse et al. 2021, *Memory Efficient 3D U-Net with Reversible Mobile Inverted Bottlenecks for Brain
Tumor Segmentation* (arXiv 2104.09648). Their text was not at hand but for the abstract, and no code
is published: reversible couplings, MobileNetV2's bottleneck and a 3D U-Net are theirs; widths,
norms and the joints between the levels follow the reversible U-Net they build on (Bruegger et al.
2019, arXiv 1906.06148): skips are added, levels change by 1x1x1 convolutions.
"""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from fieldfare.common.blocks import MBConv, ReversibleStage, convolution, normalisation

from .config import NetworkConfig

_LINEAR = {2: "bilinear", 3: "trilinear"}


class ReversibleUNet(nn.Module):
    """Images (B, modalities, *size) to logits (B, regions, *size), of any size.

    Args:
        config: of the architecture `reversible_unet`.
        memory: see `ReversibleStage`; may be set anew at any time.
    """

    def __init__(self, config: NetworkConfig, memory: str = "none") -> None:
        super().__init__()
        self.config = config
        ndim, widths = config.ndim, config.channels
        if not len(widths) == len(config.blocks) == len(config.decoder_blocks) + 1:
            raise ValueError(
                f"{len(widths)} channels want as many blocks and one fewer decoder_blocks, "
                f"got {len(config.blocks)} and {len(config.decoder_blocks)}"
            )

        def branch(channels: int) -> nn.Module:
            return MBConv(
                channels,
                expansion=config.expansion,
                ndim=ndim,
                norm=config.norm,
                attention=config.attention,
                dropout=config.dropout,
                group_size=config.group_size,
            )

        def stages(blocks: tuple[int, ...]) -> nn.ModuleList:
            pairs = zip(widths, blocks, strict=False)
            return nn.ModuleList(ReversibleStage(branch, width, n, memory) for width, n in pairs)

        def joint(width: int, out: int) -> nn.Module:
            return nn.Sequential(
                convolution(ndim, width, out, 1, bias=False), normalisation(plain, ndim, out)
            )

        # Between the levels there is no activation, which an EvoNorm would be.
        evonorm = config.norm == "evonorm"
        plain = "group" if evonorm else config.norm
        pairs = list(itertools.pairwise(widths))
        self.stem = convolution(ndim, len(config.modalities), widths[0], 3, padding=1)
        self.encoder = stages(config.blocks)
        self.down = nn.ModuleList(joint(fine, coarse) for fine, coarse in pairs)
        self.up = nn.ModuleList(joint(coarse, fine) for fine, coarse in pairs)
        self.decoder = stages(config.decoder_blocks)
        levels = widths[:-1] if config.deep_supervision else widths[:1]
        self.heads = nn.ModuleList(
            nn.Sequential(
                normalisation(config.norm, ndim, width),
                nn.Identity() if evonorm else nn.SiLU(),
                convolution(ndim, width, len(config.regions), 1),
            )
            for width in levels
        )
        self._memory = memory

    @property
    def memory(self) -> str:
        """How the stages save memory in training."""
        return self._memory

    @memory.setter
    def memory(self, mode: str) -> None:
        for stage in (*self.encoder, *self.decoder):
            stage.memory = mode
        self._memory = mode

    @property
    def stride(self) -> int:
        """Voxels of the input for each of the coarsest level."""
        return 1 << (len(self.config.channels) - 1)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """The logits; in training with deep supervision those of every level, finest first."""
        size = image.shape[2:]
        x = self.stem(_continued(image, self.stride))
        skips = []
        for level, stage in enumerate(self.encoder):
            x = stage(x)
            if level < len(self.down):
                skips.append(x)
                x = self.down[level](_pooled(x))
        maps = []
        for level in reversed(range(len(self.decoder))):
            x = F.interpolate(self.up[level](x), scale_factor=2, mode=_LINEAR[x.ndim - 2])
            x = self.decoder[level](x + skips[level])
            if level == 0 or (self.training and self.config.deep_supervision):
                maps.append(self.heads[level](x))
        maps[-1] = maps[-1][(..., *(slice(0, length) for length in size))]
        return maps[::-1] if self.training and self.config.deep_supervision else maps[-1]


def _continued(image: Tensor, stride: int) -> Tensor:
    """With zeros after the end of every axis, up to a multiple of the stride."""
    ends = [(0, -length % stride) for length in reversed(image.shape[2:])]
    return F.pad(image, [number for pair in ends for number in pair])


def _pooled(x: Tensor) -> Tensor:
    return F.max_pool3d(x, 2) if x.ndim == 5 else F.max_pool2d(x, 2)

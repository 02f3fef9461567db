# SPDX-License-Identifier: Apache-2.0
"""The nested decoder of U-Net++, cut to any depth without new training.

Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical Image Segmentation"
(arXiv 1807.10165), pruned as in Zhou et al. 2020 (arXiv 1912.05074), section 3.3; with EfficientNet
encoders for buildings in arXiv 2310.06847. The blocks, their names and the last one, which returns
to full resolution, are those of segmentation_models_pytorch, so that its checkpoints fit.
"""

import warnings
from collections.abc import Sequence

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from torch import Tensor

DEPTHS = (1, 2, 3, 4)
FULL_DEPTH = 4


class NestedDecoder(UnetPlusPlusDecoder):
    """The nodes X^{i,j} of U-Net++ up to a depth.

    Depth k needs the features of strides 2 to 2^(k+1) and the nodes with i + j <= k. The package's
    x_d_l is X^{3-l, l-d+1}: these are its blocks with d >= 4 - k. All outputs X^{0,k} lie at
    stride 2; x_0_4 takes that of the full depth to stride 1.

    Args:
        channels: of the encoder's features, strides 2, 4, 8, 16, 32; 0 where a stride is missing
            or the depth does not need it.
        decoder_channels: as in segmentation_models_pytorch, deepest first.
        depth: 1 to 4.
    """

    def __init__(
        self,
        channels: Sequence[int],
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        depth: int = FULL_DEPTH,
    ) -> None:
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {DEPTHS}, got {depth}")
        with warnings.catch_warnings():
            # Blocks of a missing stride or a depth cut off have no channels, of which torch warns.
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            super().__init__((0, *channels), decoder_channels)
            initialize_decoder(self)
        self.cut = FULL_DEPTH - depth
        if self.cut:
            for name in list(self.blocks):
                if int(name.split("_")[1]) < self.cut:
                    del self.blocks[name]

    @property
    def output_channels(self) -> list[int]:
        """Width of each output of forward."""
        nodes = [f"x_{d}_3" for d in range(3, max(self.cut, 1) - 1, -1)]
        return [self.blocks[name].out_channels for name in (*nodes, *["x_0_4"][self.cut :])]  # type: ignore[misc]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features, finest first -> X^{0,1}, X^{0,2}, ... to the depth.

        All are (B, c, H / 2, W / 2), but that of the full depth, which is (B, c, H, W).
        """
        cut = self.cut
        coarse_first = dict(enumerate(features[FULL_DEPTH - cut :: -1], start=cut))
        nodes: dict[tuple[int, int], Tensor] = {}
        for span in range(FULL_DEPTH - cut):
            for d in range(cut, FULL_DEPTH - span):
                level = d + span
                below = nodes[d, level - 1] if span else coarse_first[d]
                skips = [nodes[k, level] for k in range(d + 1, level + 1)]
                skip = torch.cat([*skips, coarse_first[level + 1]], dim=1)
                nodes[d, level] = self.blocks[f"x_{d}_{level}"](below, skip)
        outputs = [nodes[d, 3] for d in range(3, cut - 1, -1)]
        if not cut:
            outputs[-1] = self.blocks["x_0_4"](outputs[-1])
        return outputs

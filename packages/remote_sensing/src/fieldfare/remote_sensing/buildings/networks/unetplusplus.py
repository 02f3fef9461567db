# SPDX-License-Identifier: Apache-2.0
"""The nested decoder of U-Net++, cut to any depth without new training.

Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical Image Segmentation"
(arXiv 1807.10165), pruned as in Zhou et al. 2020 (arXiv 1912.05074), section 3.3; with EfficientNet
encoders for buildings in arXiv 2310.06847. The blocks, their names, their first weights and the
last one, which returns to full resolution, are those of segmentation_models_pytorch, so that its
checkpoints fit.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = (1, 2, 3, 4)
FULL_DEPTH = 4


class DecoderBlock(nn.Module):
    """Enlarges a map twice by nearest neighbour, joins the skip and convolves two times.

    Args:
        inputs: channels of the map that is enlarged.
        skips: channels of the skip.
        outputs: channels of the result; 0 where the encoder lacks the stride.
    """

    def __init__(self, inputs: int, skips: int, outputs: int) -> None:
        super().__init__()
        self.out_channels, self.is_empty = outputs, outputs == 0
        if not self.is_empty:
            self.conv1 = _convolution(inputs + skips, outputs)
            self.conv2 = _convolution(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, inputs, h, w) and (B, skips, 2h, 2w) -> (B, outputs, 2h, 2w)."""
        if self.is_empty:
            return x.new_empty(x.shape[0], 0, 2 * x.shape[2], 2 * x.shape[3])
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        x = self.conv2(self.conv1(x))
        return x


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def initialise_decoder(decoder: nn.Module) -> None:
    """First weights of a decoder: He et al. 2015 (arXiv 1502.01852), uniform."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")


class NestedDecoder(nn.Module):
    """The nodes X^{i,j} of U-Net++ up to a depth.

    Depth k needs the features of strides 2 to 2^(k+1) and the nodes with i + j <= k. The block
    x_d_l is X^{3-l, l-d+1}: a depth has those with d >= 4 - k. All outputs X^{0,k} lie at stride 2;
    x_0_4 takes that of the full depth to stride 1.

    Args:
        channels: of the encoder's features, strides 2, 4, 8, 16, 32; 0 where a stride is missing
            or the depth does not need it.
        decoder_channels: deepest first.
        depth: 1 to 4.
    """

    def __init__(
        self,
        channels: Sequence[int],
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        depth: int = FULL_DEPTH,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {DEPTHS}, got {depth}")
        if len(decoder_channels) != 5:
            raise ValueError(f"decoder_channels must be five, got {decoder_channels}")
        self.cut = FULL_DEPTH - depth
        coarsest, *self.skip_channels = channels[::-1]
        self.in_channels = [coarsest, *decoder_channels[:-1]]
        self.out_channels = list(decoder_channels)
        blocks = {}
        for level, skip in enumerate(self.skip_channels):
            for d in range(self.cut, level + 1):
                inputs = self.skip_channels[level - 1] if d else self.in_channels[level]
                outputs = skip if d else self.out_channels[level]
                blocks[f"x_{d}_{level}"] = DecoderBlock(inputs, skip * (level + 1 - d), outputs)
        if not self.cut:
            blocks["x_0_4"] = DecoderBlock(self.in_channels[4], 0, self.out_channels[4])
        self.blocks = nn.ModuleDict(blocks)
        initialise_decoder(self)

    @property
    def output_channels(self) -> list[int]:
        """Width of each output of forward."""
        finest = [self.skip_channels[3]] * (FULL_DEPTH - max(self.cut, 1))
        return finest if self.cut else [*finest, self.out_channels[4]]

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

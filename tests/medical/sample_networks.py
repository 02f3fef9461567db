# SPDX-License-Identifier: Apache-2.0
"""Networks with known answers, and tiny ones without training, as predictors take them."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.medical.networks.config import NetworkConfig
from fieldfare.medical.networks.models import TASK
from fieldfare.medical.networks.reversible_unet import ReversibleUNet

TINY = NetworkConfig(spacing=1.0, channels=(8, 16), blocks=(1, 1), decoder_blocks=(1,), expansion=2)


class Thresholds(nn.Module):
    """WT where FLAIR, TC where T1ce, ET where T1 is above a z-score; pointwise, so exact.

    Logits are steep, so that interpolated probabilities tell on which side of 0.5 they came from.
    """

    def __init__(
        self,
        spacing: float = 1.0,
        ndim: int = 3,
        modality_dropout: bool = False,
        above: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = NetworkConfig(spacing=spacing, ndim=ndim, modality_dropout=modality_dropout)
        self.calls: list[tuple[int, ...]] = []
        self.above = above
        self.weight = nn.Parameter(torch.tensor(50.0))

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(tuple(images.shape))
        t1, t1ce, _, flair = images.unbind(1)
        return self.weight * (torch.stack([flair, t1ce, t1], dim=1) - self.above)


def write_model(path: Path, **changes: object) -> Path:
    """The weight file of an untrained network, TINY but for the changes."""
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, **changes)
    card = ModelCard(path.stem, TASK, "Untrained.", config.to_dict())
    save_model_file(path, ReversibleUNet(config).state_dict(), card)
    return path

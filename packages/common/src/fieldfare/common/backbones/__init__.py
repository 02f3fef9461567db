# SPDX-License-Identifier: Apache-2.0
"""Backbones that timm lacks, one architecture a file; importing this package registers them.

The two-dimensional ones are timm models from then on: `timm.create_model("vanillanet_5")`,
`segmentation_models_pytorch.UnetPlusPlus("tu-vanillanet_5", encoder_weights=None)`.
"""

from .mobilenetv2 import MobileNetV2Encoder
from .simplenet import SimpleNet
from .vanillanet import VanillaNet, set_linearity

__all__ = ["MobileNetV2Encoder", "SimpleNet", "VanillaNet", "set_linearity"]

# SPDX-License-Identifier: Apache-2.0
"""Backbones that timm lacks, one architecture a file; importing this package registers them.

The two-dimensional ones are timm models from then on: `timm.create_model("vanillanet_5")`,
`segmentation_models_pytorch.UnetPlusPlus("tu-vanillanet_5", encoder_weights=None)`.
"""

from .eeea_cells import CellNet
from .eeea_net import EEEANet
from .efficientmod import EfficientMod
from .mobilenetv2 import MobileNetV2Encoder
from .simplenet import SimpleNet
from .slab_deit import SlabDeit
from .slab_swin import SlabSwin
from .vanillanet import VanillaNet, set_linearity

__all__ = [
    "CellNet",
    "EEEANet",
    "EfficientMod",
    "MobileNetV2Encoder",
    "SimpleNet",
    "SlabDeit",
    "SlabSwin",
    "VanillaNet",
    "set_linearity",
]

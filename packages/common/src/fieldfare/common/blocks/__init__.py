# SPDX-License-Identifier: Apache-2.0
"""Building blocks in one, two and three dimensions."""

from .aspp import ASPP
from .attention import EfficientChannelAttention, SqueezeExcite, eca_kernel
from .depthwise import DepthwiseConv
from .mbconv import MBConv
from .nd import adaptive_avg_pool, convolution, normalisation
from .reversible import MEMORY_MODES, ReversibleStage
from .selective_scan import selective_scan

__all__ = [
    "ASPP",
    "MEMORY_MODES",
    "DepthwiseConv",
    "EfficientChannelAttention",
    "MBConv",
    "ReversibleStage",
    "SqueezeExcite",
    "adaptive_avg_pool",
    "convolution",
    "eca_kernel",
    "normalisation",
    "selective_scan",
]

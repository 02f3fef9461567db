# SPDX-License-Identifier: Apache-2.0
"""Building blocks in one, two and three dimensions."""

from .aspp import ASPP
from .attention import EfficientChannelAttention, SqueezeExcite, eca_kernel
from .content_attention import ContentGuidedAttention, ContentGuidedFusion
from .depthwise import DepthwiseConv
from .detail_conv import DetailConv
from .drop_path import ScheduledDropPath, schedule_drop_path
from .evonorm import EvoNormB0, EvoNormS0
from .group_size import group_convolution, regroup
from .linear_attention import LinearAttention, linear_attention
from .mbconv import MBConv
from .nd import adaptive_avg_pool, convolution, convolve, normalisation
from .prepbn import PRepBN
from .reversible import MEMORY_MODES, ReversibleStage
from .selective_scan import selective_scan
from .steps import advance, count_steps

__all__ = [
    "ASPP",
    "MEMORY_MODES",
    "ContentGuidedAttention",
    "ContentGuidedFusion",
    "DepthwiseConv",
    "DetailConv",
    "EfficientChannelAttention",
    "EvoNormB0",
    "EvoNormS0",
    "LinearAttention",
    "MBConv",
    "PRepBN",
    "ReversibleStage",
    "ScheduledDropPath",
    "SqueezeExcite",
    "adaptive_avg_pool",
    "advance",
    "convolution",
    "convolve",
    "count_steps",
    "eca_kernel",
    "group_convolution",
    "linear_attention",
    "normalisation",
    "regroup",
    "schedule_drop_path",
    "selective_scan",
]

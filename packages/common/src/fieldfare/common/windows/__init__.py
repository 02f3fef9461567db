# SPDX-License-Identifier: Apache-2.0
"""N-D sliding windows over arrays or files: plan, blend, stream with bounded memory."""

from .blend import BLENDS, axis_weights, fuse, unity_weights
from .plan import Axis, Plan, plan, reflect_indices
from .stream import band_bytes, sliding, stream

__all__ = [
    "BLENDS",
    "Axis",
    "Plan",
    "axis_weights",
    "band_bytes",
    "fuse",
    "plan",
    "reflect_indices",
    "sliding",
    "stream",
    "unity_weights",
]

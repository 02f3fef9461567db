# SPDX-License-Identifier: Apache-2.0
"""One door to any backbone: channels, strides and a list of features, finest first."""

from .base import Encoder, list_nd_encoders, register_nd_encoder
from .create import create_encoder

__all__ = ["Encoder", "create_encoder", "list_nd_encoders", "register_nd_encoder"]

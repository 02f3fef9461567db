# SPDX-License-Identifier: Apache-2.0
"""One door to any backbone: channels, strides and a list of features, finest first."""

from .base import Encoder, register_nd_encoder
from .create import create_encoder, list_nd_encoders

__all__ = ["Encoder", "create_encoder", "list_nd_encoders", "register_nd_encoder"]

# SPDX-License-Identifier: Apache-2.0
"""NetMamba: the first bytes of a flow through a state-space model."""

from .config import CONFIGS, NetMambaConfig
from .network import NetMambaClassifier, normalise
from .packet_bytes import packet_bytes, published_bytes
from .pretraining import NetMambaPretraining, Reconstruction

__all__ = [
    "CONFIGS",
    "NetMambaClassifier",
    "NetMambaConfig",
    "NetMambaPretraining",
    "Reconstruction",
    "normalise",
    "packet_bytes",
    "published_bytes",
]

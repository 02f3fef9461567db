# SPDX-License-Identifier: Apache-2.0
"""netFound: bursts of header fields through a hierarchical transformer."""

from .config import CONFIGS, NetFoundConfig
from .embedding import FlowInputs
from .network import NetFoundClassifier
from .pretraining import NetFoundPretraining, PretrainingSettings, corrupt
from .records import PacketFields, packet_fields, read_records
from .tokens import FlowTokens, tokenise

__all__ = [
    "CONFIGS",
    "FlowInputs",
    "FlowTokens",
    "NetFoundClassifier",
    "NetFoundConfig",
    "NetFoundPretraining",
    "PacketFields",
    "PretrainingSettings",
    "corrupt",
    "packet_fields",
    "read_records",
    "tokenise",
]

# SPDX-License-Identifier: Apache-2.0
"""A group of flows for a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..capture import FirstPackets, FlowBatch, Kept
from ..data.flow_rows import COLUMNS
from .classifier import load_classifier
from .label import LabelSettings, label_flows

FLOWS, PACKETS = 64, 12
HEADER = 40
PAYLOAD = 200
SECOND = 10**9


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What labels 64 flows of 12 packets with a variant's settings."""
    classifier, _ = load_classifier(settings["model"])
    flows = made_up(classifier.kept)
    first = settings["first_packets"]
    how = LabelSettings(first_packets=first[0] if first else None)
    return lambda: label_flows(classifier, flows, how)


def made_up(kept: Kept) -> FlowBatch:
    """Flows of TCP over IPv4 to port 443, in both directions, of random bytes."""
    rng = np.random.default_rng(0)
    count = FLOWS * min(PACKETS, kept["keep_packets"])
    flow = np.repeat(np.arange(FLOWS), count // FLOWS)
    number = np.arange(count) % (count // FLOWS)
    payload = min(PAYLOAD, kept["keep_payload"])
    data = np.zeros((count, kept["keep_header"] + kept["keep_payload"]), np.uint8)
    data[:, : HEADER + payload] = rng.integers(0, 256, (count, HEADER + payload), np.uint8)
    data[:, [0, 9, 32]] = 0x45, 6, 0x50  # version and length; TCP; its length
    zeros: dict[str, np.ndarray] = dict.fromkeys(COLUMNS, np.zeros(FLOWS, np.int64))
    every: dict[str, np.ndarray] = {
        "flow_id": np.arange(FLOWS),
        "family": np.full(FLOWS, 4, np.uint8),
        "src_ip": rng.integers(0, 256, (FLOWS, 16), np.uint8),
        "dst_ip": rng.integers(0, 256, (FLOWS, 16), np.uint8),
        "src_port": rng.integers(1024, 1 << 16, FLOWS).astype(np.uint16),
        "dst_port": np.full(FLOWS, 443, np.uint16),
        "protocol": np.full(FLOWS, 6, np.uint8),
        "end": np.full(FLOWS, PACKETS * SECOND),
        "packets_fwd": np.full(FLOWS, PACKETS),
        "statistics": np.zeros((FLOWS, 0)),
    }
    packets = FirstPackets(
        flow=flow,
        time=number * SECOND,
        backward=number % 2 == 1,
        bytes=np.full(count, HEADER + PAYLOAD),
        transport=np.full(count, 20),
        header=np.full(count, HEADER),
        payload=np.full(count, payload),
        payload_length=np.full(count, PAYLOAD),
        data=data,
    )
    return FlowBatch(**zeros | every, first_packets=packets)

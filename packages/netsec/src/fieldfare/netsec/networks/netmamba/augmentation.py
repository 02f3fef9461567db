# SPDX-License-Identifier: Apache-2.0
"""Changes to a flow's bytes that another recording of the same application might have had."""

import numpy as np

from .config import NetMambaConfig

LESS_PACKETS = 0.15
"""Share of flows that lose some packets, at the beginning or at the end."""

LESS_HEADER = 0.1
"""Share of flows whose headers end behind 40 bytes, which leaves out most TCP options; and, drawn
apart, of flows whose IP and TCP lengths and window are hidden."""

LESS_PAYLOAD = 0.1
"""Share of flows whose payloads are cut, as by a snap length."""

HIDDEN_TOKENS = 0.1
"""Most that is hidden of a flow's tokens."""

_PLAIN_HEADERS = 40
_WINDOW = slice(34, 36)
_LENGTH = slice(2, 4)


def augment(rows: np.ndarray, config: NetMambaConfig, rng: np.random.Generator) -> np.ndarray:
    """Leave things out at random.

    Args:
        rows: (B, byte_length) uint8, not written to.

    Returns:
        (B, byte_length) uint8.
    """
    count = len(rows)
    flows = rows.reshape(count, config.packets, -1).copy()
    payload = flows[:, :, config.header_bytes :]
    ipv4 = (flows[:, :, 0] >> 4) == 4
    for row in np.flatnonzero(rng.random(count) < LESS_PACKETS):
        _drop_packets(flows[row], rng)
    for row in np.flatnonzero(rng.random(count) < LESS_PAYLOAD):
        payload[row, :, rng.integers(0, payload.shape[2] + 1) :] = 0
    flows[rng.random(count) < LESS_HEADER, :, _PLAIN_HEADERS : config.header_bytes] = 0
    for place in (_WINDOW, _LENGTH):
        hidden = (rng.random(count) < LESS_HEADER)[:, None] & ipv4
        flows[:, :, place][hidden] = 0
    tokens = flows.reshape(count, config.tokens, config.stride)
    share = rng.random((count, 1)) * HIDDEN_TOKENS
    tokens[rng.random((count, config.tokens)) < share] = 0
    return tokens.reshape(count, -1)


def _drop_packets(flow: np.ndarray, rng: np.random.Generator) -> None:
    """Leave out some of the first or of the last packets, in place; one at least stays."""
    present = int(flow.any(axis=1).sum())
    if present < 2:
        return
    dropped = int(rng.integers(1, present))
    if rng.random() < 0.5:
        flow[:-dropped] = flow[dropped:].copy()
        flow[len(flow) - dropped :] = 0
    else:
        flow[present - dropped :] = 0

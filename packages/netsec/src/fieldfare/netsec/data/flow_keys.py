# SPDX-License-Identifier: Apache-2.0
"""5-tuples of flows as short strings of bytes, whichever end sent first."""

import ipaddress

import numpy as np

from ..capture import FlowBatch

FlowKey = bytes
"""Family, protocol (ICMPv6 as ICMP) and the two ends, address and port, the smaller first."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

KEY_BYTES = 38
_ADDRESS = 16
_ICMP, _ICMPV6 = 1, 58


def pack_key(protocol: int, one: tuple[Address, int], other: tuple[Address, int]) -> FlowKey:
    """The key of a protocol and two ends, address and port, in any order."""
    ends = sorted(
        address.packed.ljust(_ADDRESS, b"\0") + port.to_bytes(2, "big")
        for address, port in (one, other)
    )
    versions = {address.version for address, _ in (one, other)}
    family = versions.pop() if len(versions) == 1 else 0  # 0: no flow has addresses of both
    return bytes((family, _ICMP if protocol == _ICMPV6 else protocol)) + b"".join(ends)


def key_rows(batch: FlowBatch) -> np.ndarray:
    """(N, KEY_BYTES) uint8, the keys of flows."""
    ends = []
    for address, port in ((batch.src_ip, batch.src_port), (batch.dst_ip, batch.dst_port)):
        packed = address * ((np.arange(_ADDRESS) < 4) | (batch.family != 4)[:, None])
        high = np.ascontiguousarray(port.astype(">u2")).view(np.uint8).reshape(-1, 2)
        ends.append(np.concatenate([packed, high], axis=1, dtype=np.uint8))
    one, other = (np.ascontiguousarray(end).view(f"S{_ADDRESS + 2}") for end in ends)
    ordered = one <= other
    low, high = np.where(ordered, *ends), np.where(ordered, *ends[::-1])
    protocol = np.where(batch.protocol == _ICMPV6, _ICMP, batch.protocol)
    head = np.stack([batch.family, protocol], axis=1)
    return np.concatenate([head, low, high], axis=1, dtype=np.uint8)


def flow_keys(batch: FlowBatch) -> list[FlowKey]:
    """The keys of flows."""
    content = key_rows(batch).tobytes()
    return [content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)]

# SPDX-License-Identifier: Apache-2.0
"""Link types that the compiled pass does not read, and published pre-processing, left to scapy.

The only module that imports scapy, which is GPL-2.0; without it such packets count as unsupported.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.errors import InputError

from . import scan
from .container import Packets
from .links import NATIVE, RAW

_NATIVE = np.array(sorted(NATIVE))


class UnusualLinks:
    """Turns packets of unusual link types into raw IP packets where scapy finds one in them."""

    def __init__(self) -> None:
        self._scapy: Any = None

    def translate(self, packets: Packets) -> None:
        """Rewrite records so that they begin at their IP header; others stay as they are."""
        if packets.used == 0:
            return
        records = packets.records[: packets.used]
        link = records[:, scan.LINK]
        if (link[0] == link).all() and int(link[0]) in NATIVE:
            return
        for row in np.flatnonzero(~np.isin(link, _NATIVE)):
            record = records[row]
            start = int(record[scan.AT])
            frame = packets.buffer[start : start + int(record[scan.CAPTURED])].tobytes()
            found = self.find_ip(frame, int(record[scan.LINK]))
            if found is None:
                continue
            offset, length = found
            record[scan.AT] += offset
            record[scan.WIRE] = max(record[scan.WIRE] - offset, length)
            record[scan.CAPTURED] = length
            record[scan.LINK] = RAW

    def find_ip(self, frame: bytes, link: int) -> tuple[int, int] | None:
        """Offset and length of the IP packet in a frame, None where scapy finds none."""
        if self._scapy is None:
            self._scapy = _load()
        if not self._scapy:
            return None
        link_layers, network_layers = self._scapy
        layer_class = link_layers.get(link)
        if layer_class is None:
            return None
        try:
            layer = layer_class(frame)
        except Exception:  # scapy promises no kind of error for hostile bytes
            return None
        while layer:
            if isinstance(layer, network_layers):
                inner = bytes(layer.original)
                offset = frame.find(inner)
                return (offset, len(inner)) if offset >= 0 else None
            layer = layer.payload
        return None


def _load() -> Any:
    """The link layers by their number and the classes of IP packets; () without scapy."""
    try:
        import logging

        logging.getLogger("scapy").setLevel(logging.ERROR)
        import scapy.layers.all  # noqa: F401
        from scapy.config import conf
        from scapy.layers.inet import IP
        from scapy.layers.inet6 import IPv6
    except ImportError:
        return ()
    return conf.l2types.num2layer, (IP, IPv6)


def ip_packets_with_payload(path: Path, count: int) -> Iterator[tuple[bytes, bytes] | None]:
    """The first packets of a capture as scapy rebuilds them, IPv4 addresses 0.0.0.0.

    Yields:
        (packet from its outermost IPv4 header on, what no layer of scapy's took for its own), or
        None for a packet without IPv4.

    Raises:
        InputError: no such file, no capture, or scapy is not installed.
    """
    if not _load():
        raise InputError("the published byte representation needs scapy: pip install scapy")
    from scapy.error import Scapy_Exception
    from scapy.layers.inet import IP
    from scapy.packet import Raw
    from scapy.utils import PcapReader

    try:
        with PcapReader(str(path)) as reader:
            for packet in islice(reader, count):
                yield _rebuilt(packet, IP, Raw)
    except (OSError, Scapy_Exception) as error:
        raise InputError(f"{path}: not a readable capture ({error})") from None


def _rebuilt(packet: Any, ip: Any, raw: Any) -> tuple[bytes, bytes] | None:
    try:
        network = packet[ip]
        network.src = network.dst = "0.0.0.0"
        return bytes(network), bytes(packet[raw]) if raw in packet else b""
    except Exception:  # no IPv4, or a packet that scapy cannot build; zeros, as published
        return None

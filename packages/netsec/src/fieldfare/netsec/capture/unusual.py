# SPDX-License-Identifier: Apache-2.0
"""Link types that the compiled pass does not read, and published pre-processing, left to scapy.

The only module that imports scapy, which is GPL-2.0; without it such packets count as unsupported.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.errors import InputError

from . import scan
from .compiled import view
from .container import Packets
from .dot11 import expand
from .links import NATIVE, NO_IP, RAW, USER_2, WIRELESS

_NATIVE = np.array(sorted(NATIVE))
_WIRELESS = np.array(sorted(WIRELESS))
_ROWS = 4096


class UnusualLinks:
    """Turns packets of unusual link types into raw IP packets where scapy finds one in them."""

    def __init__(self) -> None:
        self._scapy: Any = None
        self.unread: Counter[int] = Counter()
        """Packets by link types that nothing here reads."""

    def translate(self, packets: Packets) -> Iterator[Packets]:
        """The same packets, so that the compiled pass can read them; one frame may hold several."""
        if packets.used == 0:
            yield packets
            return
        link = packets.records[: packets.used, scan.LINK]
        if (link[0] == link).all() and int(link[0]) in NATIVE - {USER_2}:
            yield packets
            return
        if not np.isin(link, _WIRELESS).any():
            self._rewrite(packets)
            yield packets
            return
        row = 0
        while row < packets.used:
            out = np.empty((_ROWS, scan.RECORD_FIELDS), np.int64)
            row, used = expand(
                view(packets.buffer), view(packets.records), row, packets.used, view(out)
            )
            found = Packets(packets.buffer, out, used)
            self._rewrite(found)
            yield found

    def _rewrite(self, packets: Packets) -> None:
        """Let records begin at their IP header where scapy finds one."""
        records = packets.records[: packets.used]
        link = records[:, scan.LINK]
        for row in np.flatnonzero(~np.isin(link, _NATIVE)):
            record = records[row]
            start = int(record[scan.AT])
            frame = packets.buffer[start : start + int(record[scan.CAPTURED])].tobytes()
            number = int(record[scan.LINK])
            if not self.knows(number):
                self.unread[number] += 1
                continue
            found = self.find_ip(frame, number)
            if found is None:
                record[scan.LINK] = NO_IP
                continue
            offset, length = found
            record[scan.AT] += offset
            record[scan.WIRE] = max(record[scan.WIRE] - offset, length)
            record[scan.CAPTURED] = length
            record[scan.LINK] = RAW

    def knows(self, link: int) -> bool:
        """Whether scapy is there and reads this link type."""
        if self._scapy is None:
            self._scapy = _load()
        return bool(self._scapy) and link in self._scapy[0]

    def find_ip(self, frame: bytes, link: int) -> tuple[int, int] | None:
        """Offset and length of the IP packet in a frame, None where scapy finds none."""
        if not self.knows(link):
            return None
        link_layers, network_layers = self._scapy
        try:
            layer = link_layers[link](frame)
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

# SPDX-License-Identifier: Apache-2.0
"""Packets of a network interface (Linux), in the same form as those of a file.

Source: packet(7), socket(7). Needs the capability CAP_NET_RAW.
"""

import socket
import struct
import time
from collections.abc import Iterator

import numpy as np

from fieldfare.common.errors import InputError

from . import scan
from .container import Packets
from .links import RAW, TYPE_IPV4, TYPE_IPV6, UNKNOWN

_ALL_PROTOCOLS = 0x0003
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_TIMESTAMP_NS = 35  # SO_TIMESTAMPNS and SCM_TIMESTAMPNS
_KERNEL_BUFFER = 32 << 20
_MOST = 512  # packets handed on at once
_SNAP = 65_536
_SENT_TO_ITSELF = (4, 772)
"""PACKET_OUTGOING on a loopback: the kernel shows each of its packets as sent and as received."""
_WAIT = 0.25  # seconds until packets are handed on, or word that none have come


class InterfaceSource:
    """Iterates over the packets of an interface; ends when `stop` is called.

    The kernel takes the link layer off, so any kind of interface can be listened to.

    Args:
        name: of the interface, such as eth0; None for all.

    Raises:
        InputError: no such interface, no permission, or not Linux.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name or "all interfaces"
        self.lost = 0
        self._stopped = False
        if not hasattr(socket, "AF_PACKET"):
            raise InputError(f"{self.name}: interfaces can be read on Linux only; record a file")
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS)
            )
        except PermissionError:
            raise InputError(
                f"{self.name}: listening is not permitted; run as root or pipe tcpdump -w - into -"
            ) from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMP_NS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BUFFER)
            if name is not None:
                self._socket.bind((name, _ALL_PROTOCOLS))
            self._socket.settimeout(_WAIT)
        except OSError as error:
            self._socket.close()
            raise InputError(f"{self.name}: {error.strerror}; see ip link for names") from None
        self._buffer = np.empty(_MOST * _SNAP, np.uint8)
        self._records = np.empty((_MOST, scan.RECORD_FIELDS), np.int64)

    def stop(self) -> None:
        """End the iteration within a quarter of a second."""
        self._stopped = True

    def __iter__(self) -> Iterator[Packets]:
        with self._socket:
            while not self._stopped:
                count = self._fill()
                self._count_lost()
                yield Packets(self._buffer, self._records, count)

    def _fill(self) -> int:
        """Take packets until there are many or some time has gone by; how many."""
        target = self._buffer.data
        deadline = time.monotonic() + _WAIT
        at = row = 0
        while row < _MOST and time.monotonic() <= deadline:
            try:
                length, extra, _, address = self._socket.recvmsg_into(
                    [target[at : at + _SNAP]], 64, socket.MSG_TRUNC
                )
            except TimeoutError:
                break
            if address[2:4] == _SENT_TO_ITSELF:
                continue
            captured = min(length, _SNAP)
            link = RAW if address[1] in (TYPE_IPV4, TYPE_IPV6) else UNKNOWN
            self._records[row] = (at, captured, length, _timestamp(extra), link, 0)
            at += captured
            row += 1
        return row

    def _count_lost(self) -> None:
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.lost += struct.unpack("II", statistics)[1]  # the kernel begins anew after each look


def _timestamp(extra: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in extra:
        if level == socket.SOL_SOCKET and kind == _TIMESTAMP_NS and len(value) == 16:
            seconds, nanoseconds = struct.unpack("qq", value)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()

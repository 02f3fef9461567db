# SPDX-License-Identifier: Apache-2.0
"""The flows of a capture as scapy's dissection gives them, packet by packet, without timeouts."""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path

from scapy.config import conf
from scapy.contrib.mpls import MPLS
from scapy.layers import all as _all_layers  # noqa: F401 - registers the link types
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import (
    IPerror6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import (
    GRE,
    LLC,
    SNAP,
    CookedLinux,
    CookedLinuxV2,
    Dot1AD,
    Dot1Q,
    Ether,
    Loopback,
)
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapNgReader, RawPcapReader

logging.getLogger("scapy").setLevel(logging.CRITICAL)

Flow = tuple[str, int, str, int, int]
PORT_PROTOCOLS = {6, 17, 132, 136, 33}
EXTENSIONS = (
    IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, IPv6ExtHdrFragment, IPv6ExtHdrDestOpt, AH,
)  # fmt: skip
LAYERS = [
    Ether, Dot1Q, Dot1AD, CookedLinux, CookedLinuxV2, Loopback, LLC, SNAP, PPPoE, PPP, HDLC, MPLS,
    IP, IPv6, *EXTENSIONS, TCP, UDP, ICMP, GRE, VXLAN, Raw,
]  # fmt: skip


def scapy_packets(path: Path) -> Iterator[tuple[Packet, int]]:
    """Packets of a capture with their length on the wire."""
    with open(path, "rb") as file:
        pcapng = file.read(4) == b"\x0a\x0d\x0d\x0a"
    with (RawPcapNgReader if pcapng else RawPcapReader)(str(path)) as reader:
        for data, meta in reader:
            link = meta.linktype if pcapng else reader.linktype
            wire = meta.wirelen if meta.wirelen is not None else len(data)
            # scapy knows raw IP by this number of BSD only
            layer = conf.l2types.num2layer[12 if link in (14, 101) else link]
            try:
                yield layer(data), wire
            except struct.error:  # a frame too short for its link layer
                continue


def network_layer(packet: Packet, *, innermost: bool) -> Packet | None:
    found = None
    while packet and not isinstance(packet, (IPerror, IPerror6)):  # quoted in an ICMP error
        if isinstance(packet, (IP, IPv6)):
            found = packet
            if not innermost:
                return found
        packet = packet.payload
    return found


def describe(packet: Packet, wire: int, ports_of: dict, *, innermost: bool) -> tuple | None:
    """(flow as (source, port, destination, port, protocol), bytes, TCP flags), or None."""
    network = network_layer(packet, innermost=innermost)
    if network is None:
        return None
    left = wire - (len(packet.original) - len(network.original))
    if isinstance(network, IP):
        if network.version != 4:
            return None
        length, protocol = network.len or left, network.proto
        first, later = network.frag == 0, network.frag != 0
        first = first and bool(network.flags.MF)
        family, number = 4, (network.id, protocol)
        header = network.ihl * 4
        transport = network.payload
    else:
        length = network.plen + 40 if network.plen or network.nh == 59 else left
        protocol, transport = network.nh, network.payload
        first = later = False
        family, number = 6, 0
        header = 40
    while isinstance(transport, EXTENSIONS):
        protocol = transport.nh
        header += len(transport.original) - len(transport.payload.original)
        if isinstance(transport, IPv6ExtHdrFragment):
            later, first, number = transport.offset != 0, bool(transport.m), transport.id
            first = first and not later
            if later:
                break
        transport = transport.payload
    if length < header:
        return None
    length = min(length, left)
    source, destination = network.src, network.dst
    key = (family, source, destination, number)
    ports = (0, 0)
    if later:
        protocol, *ports = ports_of.get(key, (protocol, 0, 0))
    elif protocol in PORT_PROTOCOLS:
        data = network.original[header : min(length, len(network.original))]
        if isinstance(transport, (TCP, UDP)):
            ports = (transport.sport, transport.dport)
        elif len(data) >= 4:
            ports = (int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big"))
        if len(data) < 4:
            return None
    if first:
        ports_of[key] = (protocol, *ports)
    flags = int(transport.flags) if isinstance(transport, TCP) and not later else 0
    return (source, ports[0], destination, ports[1], protocol), length, flags


def scapy_flows(path: Path, *, innermost: bool = False) -> dict[Flow, list[int]]:
    """Packets forward and backward, bytes forward and backward, by flow in its direction.

    That is from who sent SYN, or got the answer to it, else from who sent the first packet.
    """
    flows: dict[Flow, list[int]] = {}
    told: set[Flow] = set()
    ports_of: dict = {}
    conf.layers.filter(LAYERS)
    try:
        for packet, wire in scapy_packets(path):
            described = describe(packet, wire, ports_of, innermost=innermost)
            if described is None:
                continue
            flow, length, flags = described
            reverse = (flow[2], flow[3], flow[0], flow[1], flow[4])
            if flags & 6 == 2 and not told & {flow, reverse}:
                forward, backward = (reverse, flow) if flags & 16 else (flow, reverse)
                told.add(forward)
                if backward in flows and backward != forward:
                    counts = flows.pop(backward)
                    flows[forward] = [counts[1], counts[0], counts[3], counts[2]]
                flows.setdefault(forward, [0, 0, 0, 0])
            backward = flow not in flows and reverse in flows
            counts = flows.setdefault(reverse if backward else flow, [0, 0, 0, 0])
            counts[backward] += 1
            counts[2 + backward] += length
    finally:
        conf.layers.unfilter()
    return flows

# SPDX-License-Identifier: Apache-2.0
"""Flow sets and byte counts against scapy's dissection, on real captures."""

from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="NOT CHECKED: scapy is not installed")

from flow_dicts import UNCUT, by_flow, flows_of
from scapy_oracle import scapy_flows

SAMPLE = (
    "train/ndpi__4in6tunnel.pcap",
    "train/ndpi__6in4tunnel.pcap",
    "train/ndpi__doh.pcapng",
    "train/ndpi__nfsv2.pcap",
    "train/suri__security-4710-01-input.pcap",
    "train/zeek__dns-ech.pcap",
    "train/zeek__http-get-to-ssh-server.pcap",
    "train/zeek__ipv4-fragmented-1.pcap",
    "val/ndpi__dlt_ppp.pcap",
    "val/ndpi__selfsigned.pcap",
)
"""Big and small endian, micro- and nanoseconds, pcapng, five link types, tunnels, fragments."""

IN_UDP = {
    "ndpi__dtls.pcap", "ndpi__zoom.pcap", "zeek__gtp-gtp7_ipv6.pcap",
    "zeek__gtp-gtp6_gtp_0x32.pcap",
    "zeek__gtp-gtp1_gn_normal_incl_fragmentation.pcap", "zeek__tunnels-Teredo.pcap",
}  # fmt: skip
"""Tunnels that scapy does not open by itself: GTP-U and Teredo."""


def captures(data: Path) -> list[Path]:
    return sorted((data / "pcaps").glob("*/*.pcap*"))


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("innermost", [False, True])
def test_flows_equal_scapys(data: Path, name: str, innermost: bool) -> None:
    path = data / "pcaps" / name
    rows, _ = flows_of(path, decapsulate=innermost, **UNCUT)
    assert by_flow(rows) == scapy_flows(path, innermost=innermost)


@pytest.mark.slow
@pytest.mark.parametrize("innermost", [False, True])
def test_flows_equal_scapys_on_every_capture(data: Path, innermost: bool) -> None:
    different = []
    for path in captures(data):
        if innermost and path.name in IN_UDP:
            continue
        rows, _ = flows_of(path, decapsulate=innermost, **UNCUT)
        if by_flow(rows) != scapy_flows(path, innermost=innermost):
            different.append(path.name)
    assert different == []

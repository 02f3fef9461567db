# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes: nothing crashes, nothing depends on chunks, every packet is accounted for."""

from typing import Any

import numpy as np
from flow_dicts import flows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from make_captures import (
    block,
    enhanced,
    ethernet,
    interface,
    ipv4,
    ipv6,
    pcap,
    section,
    tcp,
    udp,
)

from fieldfare.common.errors import InputError
from fieldfare.netsec.capture import headers, packets
from fieldfare.netsec.capture.compiled import view
from fieldfare.netsec.capture.frames import OK

ORDERS = st.sampled_from(["<", ">"])
BODIES = st.one_of(
    st.binary(max_size=80),
    st.builds(tcp, st.integers(0, 3), st.integers(0, 3), st.integers(0, 31)),
    st.builds(udp, st.integers(0, 3), st.sampled_from([0, 1, 4789]), st.binary(max_size=60)),
)
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
IPV4 = st.builds(
    ipv4,
    BODIES,
    st.sampled_from([1, 4, 6, 17, 41, 47, 51, 99]),
    ADDRESSES,
    ADDRESSES,
    options=st.sampled_from([b"", bytes(4), bytes(40)]),
    fragment=st.sampled_from([0, 0, 0x2000, 0x2001, 1]),
    length=st.one_of(st.none(), st.integers(0, 65535)),
)
IPV6 = st.builds(ipv6, BODIES, st.sampled_from([0, 4, 6, 17, 41, 43, 44, 51, 58, 59, 60]))
FRAMES = st.one_of(
    st.binary(max_size=120),
    st.builds(ethernet, IPV4),
    st.builds(lambda body: ethernet(body, 0x86DD), IPV6),
    st.builds(lambda inner: ethernet(ipv4(inner, 4)), IPV4),
    st.builds(lambda inner: ethernet(ipv4(b"\0\0\x86\xdd" + inner, 47)), IPV6),
)
TIMED = st.lists(st.tuples(st.integers(0, 4000).map(float), FRAMES), max_size=12)
OPTIONS = st.fixed_dictionaries(
    {
        "idle_timeout": st.sampled_from([None, 1, 100]),
        "active_timeout": st.sampled_from([None, 50]),
        "linger": st.sampled_from([None, 5]),
        "directed": st.booleans(),
        "decapsulate": st.booleans(),
        "max_flows": st.sampled_from([1, 2, 1000]),
        "keep_packets": st.sampled_from([0, 2]),
        "early_packets": st.sampled_from([0, 1, 3]),
    }
)
LINKS = st.sampled_from([0, 1, 12, 101, 108, 113, 228, 229, 276])


@given(st.data(), st.integers(1, 40), LINKS, st.booleans())
def test_dissection_reads_nothing_beyond_the_captured_end(
    data: Any, extra: int, link: int, decapsulate: bool
) -> None:
    """What lies behind the packet never matters, and all offsets stay inside."""
    frame = data.draw(FRAMES)
    wire = len(frame) + data.draw(st.integers(0, 100))
    results = []
    for fill in (0, 255):
        buffer = np.full(8 + len(frame) + extra, fill, np.uint8)
        buffer[8 : 8 + len(frame)] = np.frombuffer(frame, np.uint8)
        packet = np.zeros(headers.PACKET_FIELDS, np.int64)
        status = packets.dissect(view(buffer), 8, len(frame), wire, link, decapsulate, view(packet))
        results.append((status, packet.tolist() if status == OK else None))
    assert results[0] == results[1]
    status, found = results[0]
    if status == OK:
        network, transport, payload, end = (
            found[place]
            for place in (headers.NETWORK, headers.TRANSPORT, headers.PAYLOAD, headers.END)
        )
        assert 8 <= network <= transport <= end <= 8 + len(frame)
        assert transport <= payload <= network + found[headers.BYTES] <= 8 + wire
        assert found[headers.BYTES] >= 20


def check(capture: bytes, options: dict[str, Any], chunk: int) -> None:
    try:
        rows, counts = flows_of(capture, **options)
    except InputError:
        return
    counted = sum(row["packets_fwd"] + row["packets_bwd"] for row in rows)
    left_out = counts.not_ip + counts.damaged + counts.unsupported
    evicted = sum(row["reason"] == "evicted" for row in rows)
    if options.get("early_packets"):  # what follows is not told
        assert counted + left_out <= counts.packets
        assert counts.evicted >= evicted
    else:
        assert counted + left_out == counts.packets
        assert counts.evicted == evicted
    assert all(row["start"] <= row["end"] for row in rows)
    again, same = flows_of(capture, chunk=chunk, **options)
    assert (again, same) == (rows, counts)


@given(TIMED, ORDERS, st.booleans(), LINKS, OPTIONS, st.integers(1, 500))
def test_any_frames_in_pcap(
    frames: Any, order: str, nano: bool, link: int, options: Any, chunk: int
) -> None:
    check(pcap(frames, link, order=order, nano=nano), options, chunk)


BLOCKS = st.one_of(
    st.builds(section, ORDERS),
    st.builds(interface, LINKS, resolution=st.one_of(st.none(), st.integers(0, 255))),
    st.builds(enhanced, st.integers(0, 2**64 - 1), FRAMES, number=st.integers(0, 2)),
    st.builds(block, st.integers(0, 7), st.binary(max_size=60)),
    st.binary(max_size=40),
)


@given(st.lists(BLOCKS, max_size=10), OPTIONS, st.integers(1, 500))
def test_any_blocks_in_pcapng(blocks: list[bytes], options: Any, chunk: int) -> None:
    check(section() + interface() + b"".join(blocks), options, chunk)


@given(st.data(), OPTIONS, st.integers(1, 500))
def test_damaged_captures(data: Any, options: Any, chunk: int) -> None:
    frames = data.draw(TIMED)
    whole = bytearray(pcap(frames))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(whole), options, chunk)


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_at_all(content: bytes) -> None:
    for magic in (b"", b"\xd4\xc3\xb2\xa1", b"\x0a\x0d\x0d\x0a", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"):
        check(magic + content, {}, 64)


def test_zstd_cannot_ask_for_a_huge_window() -> None:
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([0xB0]) + bytes(32)
    try:
        flows_of(frame)
    except InputError:
        return
    raise AssertionError("such a frame holds no capture")

# SPDX-License-Identifier: Apache-2.0
"""Throws mutated captures at the reader; none may crash it, hang it or read out of bounds.

    python benchmarks/netsec/fuzz_capture.py SEEDS [--inputs 1000000] [--seconds 300] [--compiled]

SEEDS is a folder of captures, of which the first bytes are taken. Half of the inputs are whole
captures under options that vary, half are single packets in a buffer that ends with them. The
pure-Python reader is instrumented: an input that reaches a branch for the first time is kept and
mutated further. With --compiled the compiled reader, built with bounds checks, takes the inputs
unguided. Exit code 1 where there were failures; they lie in --failures.
"""

import argparse
import ast
import builtins
import gzip
import importlib.machinery
import io
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fieldfare.common.console import table
from fieldfare.common.errors import InputError

READER = "fieldfare.netsec.capture"
SEED_BYTES = (200, 700)
LINKS = (0, 1, 12, 14, 101, 108, 113, 228, 229, 276)
NUMBERS = (0, 1, 2, 4, 5, 6, 17, 20, 41, 44, 47, 51, 0x45, 0x60, 0x7F, 0x80, 0xFF, 0x800, 0x86DD,
           0x8100, 0x8847, 0x6558, 4789, 0x7FFF, 0xFFFF,
           0x40000, 0x7FFFFFFF, 0xFFFFFFFF)  # fmt: skip
LONGEST = 5  # seconds for one input before it counts as a hang


class Probes(ast.NodeTransformer):
    """Marks the beginning of every branch, also of an `else` that is not written."""

    places: ClassVar[list[str]] = []

    def __init__(self, module: str) -> None:
        self.module = module

    def probe(self, near: ast.stmt) -> ast.stmt:
        Probes.places.append(f"{self.module}:{near.lineno}")
        return ast.parse(f"_reached[{len(Probes.places) - 1}] = 1").body[0]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.If | ast.For | ast.While | ast.ExceptHandler):
            node.body.insert(0, self.probe(node.body[0]))
        if isinstance(node, ast.If):
            node.orelse.insert(0, self.probe(node.orelse[0] if node.orelse else node))
        return node


class InstrumentedLoader(importlib.machinery.SourceFileLoader):
    """Compiles a module with probes; writes no bytecode."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        tree = Probes(fullname).visit(ast.parse(self.get_data(path)))
        return compile(ast.fix_missing_locations(tree), path, "exec")


class InstrumentedFinder(importlib.machinery.PathFinder):
    """Finds the modules of the reader."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        if not fullname.startswith(READER):
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = InstrumentedLoader(fullname, spec.origin)
        return spec


def prepare(compiled: bool) -> bytearray:
    """Choose the form of the reader before it is imported; what its probes reach is marked here."""
    reached = bytearray(1 << 12)
    if compiled:
        os.environ["NUMBA_BOUNDSCHECK"] = "1"
        os.environ["NUMBA_CACHE_DIR"] = str(Path.home() / ".cache/fuzz_capture")
    else:
        os.environ["FIELDFARE_PURE_PYTHON"] = "1"
        builtins._reached = reached  # type: ignore[attr-defined]
        sys.meta_path.insert(0, InstrumentedFinder)
    return reached


def mutate(data: bytes, corpus: Sequence[bytes], choose: random.Random) -> bytes:
    """One to a few small changes: bits, numbers of every width, cuts, repeats, splices."""
    out = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 3, 6))):
        at = choose.randrange(len(out) + 1)
        kind = choose.randrange(8)
        if kind <= 1 and at < len(out):
            out[at] ^= 1 << choose.randrange(8)
        elif kind <= 3:
            width = choose.choice((1, 2, 4))
            number = choose.choice(NUMBERS) + choose.choice((-1, 0, 0, 0, 1))
            written = (number % (1 << 8 * width)).to_bytes(width, "big")
            out[at : at + width] = written[:: choose.choice((-1, 1))]
        elif kind == 4:
            del out[at : at + choose.choice((1, 2, 4, 8, 16, 1000))]
        elif kind == 5:
            out[at:at] = choose.randbytes(choose.choice((1, 2, 4, 8, 16)))
        elif kind == 6:
            out[at:at] = out[at : at + choose.randrange(1, 64)]
        else:
            other = choose.choice(corpus)
            begin = choose.randrange(len(other) + 1)
            out[at:] = other[begin:]
    return bytes(out[:2000])


def targets() -> tuple[Callable[[bytes], None], Callable[[bytes], None]]:
    """The two functions under test, with their checks; imports the reader."""
    import numpy as np

    from fieldfare.netsec.capture import FlowOptions, FlowStream, headers, packets, table
    from fieldfare.netsec.capture.compiled import view
    from fieldfare.netsec.capture.frames import OK
    from fieldfare.netsec.capture.sources import StreamSource

    # A table that is small at first and often full of ended flows, so that few packets do it.
    table._FIRST_SLOTS = table._DONE = 2

    def whole(data: bytes) -> None:
        bits = data[0] if data else 0
        options = FlowOptions(
            idle_timeout=None if bits & 1 else 5.0,
            active_timeout=3.0 if bits & 128 else None,
            linger=None if bits & 2 else 1.0,
            directed=bool(bits & 4),
            decapsulate=bool(bits & 8),
            max_flows=2 if bits & 16 else 1000,
            keep_packets=2 if bits & 32 else 0,
            keep_header=40,
            keep_payload=16,
            early_packets=bits % 3,
            max_kept_mb=0.0003 if bits & 64 else 0.1,
        )
        source = StreamSource(io.BytesIO(data[1:]), "input", max_expanded=1 << 20)
        stream = FlowStream([source], options, 64 if bits & 1 else 4096)
        counted = 0
        try:
            for batch in stream:
                counted += int(batch.packets_fwd.sum() + batch.packets_bwd.sum())
        except InputError as error:
            if "\n" in str(error):
                raise AssertionError("a message of several lines") from error
            return
        counts = stream.counts
        left_out = counts.not_ip + counts.damaged + counts.unsupported
        if counted + left_out != counts.packets and not (
            options.early_packets and counted + left_out < counts.packets  # the rest is not told
        ):
            raise AssertionError(f"{counts.packets} packets, {counted} in flows, {left_out} not")

    scratch = np.zeros(headers.PACKET_FIELDS, np.int64)
    packet = view(scratch)

    def frame(data: bytes) -> None:
        link, wire = data[0] % len(LINKS) if data else 0, data[1] if len(data) > 1 else 0
        captured = np.frombuffer(bytearray(data[2:]), np.uint8)
        size = len(captured)
        opened = bool(wire & 1)
        status = packets.dissect(view(captured), 0, size, size + wire, LINKS[link], opened, packet)
        if status != OK:
            return
        network, transport = packet[headers.NETWORK], packet[headers.TRANSPORT]
        payload, end, length = packet[headers.PAYLOAD], packet[headers.END], packet[headers.BYTES]
        if not (0 <= network <= transport <= end <= size and length >= 20):
            raise AssertionError("offsets beyond the packet")
        if not transport <= payload <= network + length <= size + wire:
            raise AssertionError("lengths beyond the wire")

    return whole, frame


def seeds(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """First bytes of captures, as inputs of either target, and what captures seldom hold."""
    captures = sorted(path for path in folder.rglob("*.pcap*") if path.is_file())
    if not captures:
        raise SystemExit(f"{folder}: holds no capture (*.pcap, *.pcapng)")
    heads = [path.read_bytes()[: SEED_BYTES[1]] for path in captures[:1500]]
    rare = rare_packets()
    raw = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for second, packet in enumerate(rare):
        raw += struct.pack("<IIII", second, 0, len(packet), len(packet)) + packet
    wholes = [head[:size] for head in heads for size in SEED_BYTES]
    wholes += [raw, gzip.compress(raw), *map(gzip.compress, heads[:20])]
    wholes = [bytes([number * 37 % 256]) + content for number, content in enumerate(wholes)]
    # In a pcap with its first packet at offset 40, that packet with what follows as its end.
    frames = [b"\x01\x01" + head[40:300] for head in heads if len(head) > 60]
    return wholes, frames + [bytes([LINKS.index(101), 1]) + packet for packet in rare]


def rare_packets() -> list[bytes]:
    """IP packets with tunnels, extension headers and fragments, for the mutations to start from."""

    def ipv4(protocol: int, body: bytes, fragment: int = 0) -> bytes:
        fixed = (0x45, 0, 20 + len(body), 7, fragment, 64, protocol, 0, bytes(8))
        return struct.pack("!BBHHHBBH8s", *fixed) + body

    def ipv6(following: int, body: bytes) -> bytes:
        return struct.pack("!IHBB32x", 6 << 28, len(body), following, 64) + body

    def udp(body: bytes, port: int = 53) -> bytes:
        return struct.pack("!HHHH", 1, port, 8 + len(body), 0) + body

    plain = ipv4(17, udp(b"payload"))
    ethernet = bytes(12) + b"\x08\0" + plain
    authentication = bytes([17, 4]) + bytes(22) + udp(b"")
    options = bytes([60, 0]) + bytes(6) + bytes([51, 1]) + bytes(14) + authentication
    return [
        ipv4(17, udp(b"first"), 0x2000), ipv4(17, b"later", 0x0001), ipv4(51, authentication),
        ipv4(4, plain), ipv4(47, b"\xb0\0\x08\0" + bytes(12) + plain),
        ipv4(47, b"\0\0\x65\x58" + ethernet),
        ipv4(17, udp(b"\x08" + bytes(7) + ethernet, 4789)), ipv4(41, ipv6(17, udp(b""))),
        ipv6(0, options), ipv6(43, bytes([4, 0]) + bytes(6) + plain),
        ipv6(44, struct.pack("!BBHI", 17, 0, 1, 9) + udp(b"first")),
        ipv6(44, struct.pack("!BBHI", 17, 0, 8, 9) + b"later"),
    ]  # fmt: skip


def hang(*_: object) -> None:
    raise TimeoutError(f"an input took more than {LONGEST} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=Path)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--failures", type=Path, default=Path("fuzz_failures"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unreached", action="store_true", help="list the branches never taken")
    options = parser.parse_args()
    reached = prepare(options.compiled)
    runs = list(zip(targets(), seeds(options.seeds), strict=True))
    choose = random.Random(options.seed)
    signal.signal(signal.SIGALRM, hang)
    first = [(run, corpus, data) for run, corpus in runs for data in corpus]
    known = failures = tried = 0
    counts, slowest = [0, 0], 0.0
    begin = time.monotonic()
    while tried < options.inputs and time.monotonic() - begin < options.seconds:
        which = tried & 1
        run, corpus = runs[which]
        if first:
            run, corpus, data = first.pop()
        else:
            # The latest finds are taken more often than the seeds.
            place = int(len(corpus) * choose.random() ** 0.5)
            data = mutate(corpus[place], corpus, choose)
        started = time.monotonic()
        signal.alarm(0 if first else LONGEST)  # the compiled reader is built on the way
        try:
            run(data)
        except Exception:
            failures += 1
            options.failures.mkdir(exist_ok=True)
            name = options.failures / f"{run.__name__}_{failures}"
            name.write_bytes(data)
            name.with_suffix(".txt").write_text(traceback.format_exc())
        signal.alarm(0)
        if not first:
            slowest = max(slowest, time.monotonic() - started)
        tried += 1
        counts[run is runs[1][0]] += 1
        if (now := reached.count(1)) > known:
            known = now
            corpus.append(data)
    spent = time.monotonic() - begin
    row = {
        "reader": "compiled, bounds checked" if options.compiled else "pure Python, guided",
        "inputs": tried,
        "captures": counts[0],
        "packets": counts[1],
        "per_second": tried / spent,
        "branches": None if options.compiled else f"{known} of {len(Probes.places)}",
        "slowest_s": slowest,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "failures": failures,
    }
    if options.unreached:
        print(
            "\n".join(place for place, hit in zip(Probes.places, reached, strict=False) if not hit)
        )
    print(table([row]))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

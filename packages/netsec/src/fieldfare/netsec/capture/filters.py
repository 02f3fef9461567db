# SPDX-License-Identifier: Apache-2.0
"""Filters in the syntax of tcpdump, as programs for `filter_pass`.

What is known: `host`, `net`, `port` and `portrange` with `src` and `dst`; `ip`, `ip6`, `tcp`,
`udp`,
`sctp`, `icmp`, `icmp6` and `proto NUMBER`; `vlan [NUMBER]`; `less` and `greater` (length of the IP
packet); `tcp[tcpflags] & (tcp-syn|tcp-ack) == 0` and its like; `and`, `or`, `not`, parentheses, and
values that share what stands before them (`port 80 or 443`). Names of hosts are not looked up.

Source: pcap-filter(7).
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import reduce

import numpy as np

from . import filter_pass as fp
from .headers import ICMP, ICMPV6, TCP, UDP

Step = list[int]

_PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": 132, "icmp": ICMP, "icmp6": ICMPV6}
_FAMILIES = {"ip": 4, "ip6": 6}
_KINDS = ("host", "net", "port", "portrange", "proto")
_FLAGS = {
    "tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32,
    "tcp-ece": 64, "tcp-cwr": 128,
}  # fmt: skip
_TOKEN = re.compile(r"\s*(tcp\[[^\]]+\]|==|!=|[()!|&]|\|\||&&|=|[^\s()!|&=]+)")


def compile_filter(text: str) -> np.ndarray:
    """A program for `filter_pass.fits`.

    Returns:
        (N, STEP_FIELDS) int64; without a step for an empty text.

    Raises:
        ValueError: the text cannot be understood; the message says where.
    """
    tokens, at = [], 0
    text = text.replace("&&", " and ").replace("||", " or ").strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at:]!r} cannot be understood")
        tokens.append(found.group(1).lower())
        at = found.end()
    if not tokens:
        return np.zeros((0, fp.STEP_FIELDS), np.int64)
    parser = _Parser(tokens)
    steps = parser.either()
    if parser.at < len(tokens):
        raise ValueError(f"{tokens[parser.at]!r} cannot be understood there")
    depth = most = 0
    for step in steps:
        depth += {fp.NOT: 0, fp.AND: -1, fp.OR: -1}.get(step[0], 1)
        most = max(most, depth)
    if most > fp.DEPTH:
        raise ValueError("more parentheses lie within one another than can be followed")
    program = np.zeros((len(steps), fp.STEP_FIELDS), np.int64)
    for row, step in enumerate(steps):
        program[row, : len(step)] = step
    return program


@dataclass(frozen=True)
class _Qualifiers:
    """What stands before a value, and holds for further ones behind `or`."""

    protocol: str | None = None
    side: int = fp.EITHER
    kind: str | None = None


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self.at = 0
        self._before = _Qualifiers()

    def _peek(self) -> str:
        return self._tokens[self.at] if self.at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        if not token:
            raise ValueError("something is missing at its end")
        self.at += 1
        return token

    def _took(self, *wanted: str) -> bool:
        if self._peek() in wanted:
            self.at += 1
            return True
        return False

    def either(self) -> list[Step]:
        steps = self._both()
        while self._took("or"):
            steps += [*self._both(), [fp.OR]]
        return steps

    def _both(self) -> list[Step]:
        steps = self._one()
        while self._took("and"):
            steps += [*self._one(), [fp.AND]]
        return steps

    def _one(self) -> list[Step]:
        if self._took("not", "!"):
            return [*self._one(), [fp.NOT]]
        if self._took("("):
            steps = self.either()
            if not self._took(")"):
                raise ValueError("a parenthesis is not closed")
            return steps
        return self._primitive()

    def _primitive(self) -> list[Step]:
        token = self._peek()
        if token.startswith("tcp["):
            return [self._flags()]
        if self._took("vlan"):
            return [[fp.IN_VLAN, int(self._take()) if self._peek().isdecimal() else -1]]
        if self._took("less", "greater"):
            return [[fp.AT_MOST if token == "less" else fp.AT_LEAST, _number(self._take())]]
        protocol = self._take() if token in _PROTOCOLS or token in _FAMILIES else None
        side = self._side()
        kind = self._take() if self._peek() in _KINDS else None
        if protocol and not side and not kind and self._peek() in ("", "and", "or", ")"):
            return [_protocol(protocol)]
        if protocol or side or kind:
            self._before = _Qualifiers(protocol, side or fp.EITHER, kind)
        value = self._take()
        steps = [_value(self._before, value)]
        if self._before.protocol:
            steps += [_protocol(self._before.protocol), [fp.AND]]
        return steps

    def _side(self) -> int:
        side = 0
        if self._took("src"):
            side = fp.SOURCE
        elif self._took("dst"):
            side = fp.DESTINATION
        if side and self._peek() in ("or", "and"):
            following = self._tokens[self.at + 1 : self.at + 2]
            if following in (["src"], ["dst"]):
                side = fp.EITHER if self._take() == "or" else fp.BOTH
                self.at += 1
        return side

    def _flags(self) -> Step:
        if self._take() not in ("tcp[tcpflags]", "tcp[13]"):
            raise ValueError("of the bytes of a packet only tcp[tcpflags] can be looked at")
        mask = 255
        if self._took("&"):
            mask = self._sum_of_flags()
        compared = self._take()
        if compared not in ("=", "==", "!="):
            raise ValueError(f"{compared!r} stands where = or != is needed")
        return [fp.HAS_FLAGS, mask, self._sum_of_flags(), int(compared != "!=")]

    def _sum_of_flags(self) -> int:
        closes = self._took("(")
        names = [self._take()]
        while self._took("|"):
            names.append(self._take())
        if closes and not self._took(")"):
            raise ValueError("a parenthesis is not closed")
        return reduce(
            lambda sum_, name: sum_ | (_FLAGS[name] if name in _FLAGS else _number(name)), names, 0
        )


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _protocol(name: str) -> Step:
    if name in _FAMILIES:
        return [fp.IS_FAMILY, _FAMILIES[name]]
    return [fp.IS_PROTOCOL, _PROTOCOLS[name]]


def _port(text: str) -> int:
    if text.isdecimal():
        if int(text) > 65535:
            raise ValueError(f"port {text} is above 65535")
        return int(text)
    try:
        return socket.getservbyname(text)
    except OSError:
        raise ValueError(f"{text!r} is no port") from None


def _value(before: _Qualifiers, text: str) -> Step:
    kind = before.kind or "host"
    if kind == "proto":
        return [fp.IS_PROTOCOL, _PROTOCOLS[text] if text in _PROTOCOLS else _number(text)]
    if kind == "port":
        return [fp.HAS_PORT, before.side, _port(text), _port(text)]
    if kind == "portrange":
        low, _, high = text.partition("-")
        return [fp.HAS_PORT, before.side, _port(low), _port(high or low)]
    try:
        net = ipaddress.ip_network(text, strict=kind == "host")
    except ValueError:
        raise ValueError(f"{text!r} is no address") from None
    words = _words(net.network_address.packed), _words(net.netmask.packed)
    return [fp.IN_NET, before.side, net.version, *words[0], *words[1]]


def _words(packed: bytes) -> list[int]:
    padded = packed.ljust(16, b"\0")
    return [int.from_bytes(padded[at : at + 4], "big") for at in range(0, 16, 4)]

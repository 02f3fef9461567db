# SPDX-License-Identifier: Apache-2.0
"""Whether a dissected packet fits a filter; compiled, see `compiled`. `filters` makes the
programs."""

from typing import Any

from .compiled import compiled
from .headers import BYTES, DPORT, DST, FAMILY, FLAGS, PROTOCOL, SPORT, SRC, TCP, VLAN

(IS_PROTOCOL, IS_FAMILY, IN_NET, HAS_PORT, IN_VLAN, AT_MOST, AT_LEAST, HAS_FLAGS, NOT, AND,
 OR) = range(11)  # fmt: skip
OPERATION, FIRST = 0, 1
STEP_FIELDS = 11
"""Columns of a step: the operation, then what it needs.

IS_PROTOCOL number; IS_FAMILY 4 or 6; IN_NET side, family, four words, four masks; HAS_PORT side,
lowest, highest; IN_VLAN number or -1 for any; AT_MOST and AT_LEAST bytes; HAS_FLAGS mask, value,
whether they shall be equal. NOT, AND and OR take results of steps before them.
"""
SOURCE, DESTINATION, EITHER, BOTH = 1, 2, 3, 4
DEPTH = 64


@compiled
def _sides(side: int, source: bool, destination: bool) -> bool:
    if side == SOURCE:
        return source
    if side == DESTINATION:
        return destination
    return source and destination if side == BOTH else source or destination


@compiled
def _in_net(packet: Any, base: int, program: Any, step: int) -> bool:
    for word in range(4):
        if packet[base + word] & program[step, 7 + word] != program[step, 3 + word]:
            return False
    return True


@compiled
def _holds(program: Any, step: int, packet: Any) -> bool:
    """One step that looks at the packet."""
    operation, first = program[step, OPERATION], program[step, FIRST]
    if operation == IS_PROTOCOL:
        return bool(packet[PROTOCOL] == first)
    if operation == IS_FAMILY:
        return bool(packet[FAMILY] == first)
    if operation == IN_NET:
        return bool(packet[FAMILY] == program[step, 2]) and _sides(
            first, _in_net(packet, SRC, program, step), _in_net(packet, DST, program, step)
        )
    if operation == HAS_PORT:
        low, high = program[step, 2], program[step, 3]
        return _sides(first, low <= packet[SPORT] <= high, low <= packet[DPORT] <= high)
    if operation == IN_VLAN:
        vlan = packet[VLAN]
        inner = vlan % 4096 if vlan >= 4096 else vlan
        outer = vlan // 4096 if vlan >= 4096 else vlan
        return bool(vlan != 0 if first < 0 else first in (inner, outer))
    if operation == AT_MOST:
        return bool(packet[BYTES] <= first)
    if operation == AT_LEAST:
        return bool(packet[BYTES] >= first)
    equal = packet[FLAGS] & first == program[step, 2]
    return bool(packet[PROTOCOL] == TCP and equal == (program[step, 3] != 0))


@compiled
def fits(program: Any, packet: Any, stack: Any) -> bool:
    """Whether a packet fits.

    Args:
        program: (N, STEP_FIELDS) int64; without a step every packet fits.
        packet: what `read_ip` made of it.
        stack: scratch of DEPTH int64.
    """
    top = 0
    for step in range(len(program)):
        operation = program[step, OPERATION]
        if operation == NOT:
            stack[top - 1] = 1 - stack[top - 1]
        elif operation in (AND, OR):
            top -= 1
            if operation == AND:
                stack[top - 1] = stack[top - 1] & stack[top]
            else:
                stack[top - 1] = stack[top - 1] | stack[top]
        else:
            stack[top] = 1 if _holds(program, step, packet) else 0
            top += 1
    return top == 0 or stack[0] == 1

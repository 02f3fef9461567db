# SPDX-License-Identifier: Apache-2.0
"""Which end of a TCP connection sent SYN, remembered beyond the flow; compiled, see `compiled`.

A connection that goes on after its flow was cut has the same source in its later parts. A table of
fixed size with one place for each hash; what is forgotten costs no more than the direction. The
hash has no seed, so that the same capture always gives the same flows.
"""

from typing import Any

from .compiled import compiled
from .fragments import mix

PLACES = 1 << 16
_PLACE, _TAG = 0x4F6CDD1D, 0x5BD1E995
_WORDS = 11


@compiled
def _hash(keys: Any, slot: int, multiplier: int) -> int:
    state = multiplier & 0xFFFF
    for word in range(_WORDS):
        state = mix(state, int(keys[slot, word]), multiplier)
    return state


@compiled
def remember_source(sources: Any, keys: Any, slot: int, swapped: int) -> None:
    """Note the direction of the flow in a slot.

    Args:
        sources: (PLACES,) int64.
        keys: of the flow state.
        slot: of the flow.
        swapped: as of `flow_state.SWAPPED`.
    """
    tag = _hash(keys, slot, _TAG)
    sources[_hash(keys, slot, _PLACE) % PLACES] = tag * 4 + 2 + swapped


@compiled
def known_source(sources: Any, keys: Any, slot: int) -> int:
    """The direction that was noted of the flow in a slot, or -1."""
    noted = sources[_hash(keys, slot, _PLACE) % PLACES]
    if noted != 0 and noted >> 2 == _hash(keys, slot, _TAG):
        return int(noted & 1)
    return -1

# SPDX-License-Identifier: Apache-2.0
"""What to hold in a bounded memory, and how to sort inputs so that less needs to be there.

He et al. 2024, *ExpertFlow* (arXiv 2410.17954): experts are loaded by a route that is known ahead,
and what is needed farthest ahead makes room. A wrong route costs a load, never a wrong result.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from fieldfare.common.errors import InputError

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values within a limit of bytes; what is needed farthest ahead makes room.

    Of what the plan does not name again the least recently used goes.

    Args:
        load: fetches the value of a key.
        limit: most bytes held at once.

    Attributes:
        loads: how often a value was fetched.
        bytes, peak: bytes held now, and most at once.
    """

    def __init__(self, load: Callable[[Hashable], Value], limit: int) -> None:
        self._load, self.limit = load, limit
        self._held: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._kept: set[Hashable] = set()
        self._seen: list[Hashable] = []
        self.plan([])
        self.loads = self.bytes = self.peak = 0

    def plan(self, keys: Iterable[Hashable], then: Iterable[Hashable] = ()) -> None:
        """The keys that will be asked for in this pass, in order, and after it."""
        self._ahead = list(keys)
        self._at, self._end = 0, len(self._ahead)
        self._ahead += then

    def begin(self) -> None:
        """A pass begins; the one before it is the plan of this and the next."""
        self.plan(self._seen, self._seen)
        self._seen = []

    def get(self, key: Hashable, size: int) -> Value:
        """The value of a key.

        Args:
            key: what to fetch.
            size: its bytes, for which room is made first.

        Raises:
            InputError: there is no room.
        """
        self._seen.append(key)
        with contextlib.suppress(ValueError):  # not foreseen: it costs a load at most
            self._at = self._ahead.index(key, self._at, self._end) + 1
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key][0]
        while self.bytes + size > self.limit:
            self._make_room(key, size)
        self._held[key] = self._load(key), size
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        self.loads += 1
        return self._held[key][0]

    def keep(self, key: Hashable, size: int) -> Value:
        """As `get`; the value stays until `release`."""
        value = self.get(key, size)
        self._kept.add(key)
        return value

    def release(self, key: Hashable) -> None:
        """The value may make room again."""
        self._kept.discard(key)

    def _make_room(self, key: Hashable, size: int) -> None:
        free = [held for held in self._held if held not in self._kept]
        if not free:
            raise InputError(
                f"memory limit {self.limit:,} bytes: {key} takes {size:,} beside {self.bytes:,} "
                "in use; raise the limit"
            )
        ahead: dict[Hashable, int] = {}
        for place in range(len(self._ahead) - 1, self._at - 1, -1):
            ahead[self._ahead[place]] = place
        # of what is not needed again the least recently used; it comes first
        farthest = max(free, key=lambda held: ahead.get(held, len(self._ahead)))
        self.bytes -= self._held.pop(farthest)[1]


def count_loads(accesses: Sequence[int], slots: int, *, planned: bool) -> int:
    """Loads of a sequence of experts with so many slots, by farthest use or by recent use."""
    cache: Cache[int] = Cache(lambda key: 0, slots)
    if planned:
        cache.plan(accesses)
    for expert in accesses:
        cache.get(expert, 1)
    return cache.loads


def group_by_route(routes: Tensor, size: int) -> list[list[int]]:
    """Batches of flows that need few experts.

    Each batch begins with the first flow left and takes, one by one, the flow that adds the fewest
    experts to it, among equal ones the first.

    Args:
        routes: (N, E) bool, the experts of all layers that each flow is foreseen to need.
        size: flows of a batch.

    Returns:
        Numbers of the flows of each batch, rising.
    """
    left, batches = list(range(len(routes))), []
    wanted = routes.bool().numpy()
    while left:
        batch = [left.pop(0)]
        active = wanted[batch[0]].copy()
        while left and len(batch) < size:
            added = (wanted[left] & ~active).sum(axis=1)
            batch.append(left.pop(int(np.argmin(added))))
            active |= wanted[batch[-1]]
        batches.append(sorted(batch))
    return batches

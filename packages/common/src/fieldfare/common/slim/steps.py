# SPDX-License-Identifier: Apache-2.0
"""Cheap transforms in fixed order, each kept only if the quality stays: channels, halves."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .moments import match_moments
from .narrow import Forward, Group, Narrowing, call, groups_of, require_library, second_moments
from .workshop import Draft, Step

SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
"""Of the channels, tried in turn."""


Finish = Callable[[nn.Module, nn.Module, Sequence[Tensor]], None]


@dataclass(frozen=True)
class Measured:
    """What one draft gives and takes.

    Attributes:
        quality: higher is better.
        seconds: of a unit, on this machine.
        macs: of a unit.
        bytes: of the network's tensors as stored.
    """

    quality: float
    seconds: float
    macs: int
    bytes: int


@dataclass(frozen=True)
class Target:
    """What is wanted; None is not asked for."""

    seconds: float | None = None
    macs: float | None = None
    bytes: int | None = None

    def met(self, found: Measured) -> bool:
        """Whether all that is asked for is kept."""
        pairs = (
            (self.seconds, found.seconds),
            (self.macs, found.macs),
            (self.bytes, found.bytes),
        )
        return all(wanted is None or own <= wanted for wanted, own in pairs)


@dataclass(frozen=True)
class Tried:
    """One draft that was looked at."""

    step: str
    what: str
    measured: Measured
    kept: bool


class Channels:
    """Fewer channels, see `narrow`.

    Args:
        name: for people.
        batches: inputs on which activations are measured.
        example: one input, with which the network is traced.
        forward: how it is called, all its outputs among the results.
        wanted: whether a group of channels may become fewer.
        finish: (narrowed network, what it was made from, batches) -> None; what else to bring back.

    Raises:
        InputError: torch-pruning is not installed.
    """

    def __init__(
        self,
        name: str,
        batches: Sequence[Tensor],
        example: Tensor,
        forward: Forward = call,
        wanted: Callable[[Group], bool] = lambda group: True,
        finish: Finish = lambda small, whole, batches: None,
    ) -> None:
        require_library()
        self.name, self._batches, self._example = name, batches, example
        self._forward, self._wanted, self._finish = forward, wanted, finish

    def candidates(self, draft: Draft) -> Iterator[tuple[str, Draft]]:
        """One for each of `SHARES`."""
        network = draft.network
        groups = [g for g in groups_of(network, self._example, self._forward) if self._wanted(g)]
        if not groups:
            return
        moments = second_moments(network, groups, self._batches, self._forward)
        narrowing = Narrowing(network, groups, moments)
        for share in SHARES:
            own = narrowing.to(share)
            match_moments(own, network, narrowing.kept(), self._batches)
            self._finish(own, network, self._batches)
            yield f"{share:.1%} of {len(groups)} layers'", dataclasses.replace(draft, network=own)


class Halves:
    """Weights of two axes and more stored in half precision, computed as before."""

    name = "half precision"

    def candidates(self, draft: Draft) -> Iterator[tuple[str, Draft]]:
        """One, unless it is so already."""
        if not draft.half:
            yield "stored in 16 bits", dataclasses.replace(draft, half=True)


def stored(weight: Tensor, *, half: bool) -> Tensor:
    """A tensor as a file holds it: in half precision where it has two axes and more."""
    return weight.half() if half and weight.ndim >= 2 and weight.is_floating_point() else weight


def rounded(draft: Draft) -> nn.Module:
    """The network as it is read from its file: itself, or a copy with rounded weights."""
    if not draft.half:
        return draft.network
    own = copy.deepcopy(draft.network)
    own.load_state_dict(stored_tensors(draft))
    return own


def stored_tensors(draft: Draft) -> dict[str, Tensor]:
    """All tensors of a network as a file holds them."""
    return {n: stored(t, half=draft.half) for n, t in draft.network.state_dict().items()}


def bytes_of(draft: Draft) -> int:
    """Of the network's tensors as stored."""
    return sum(t.numel() * t.element_size() for t in stored_tensors(draft).values())


def run(
    draft: Draft,
    steps: Sequence[Step],
    judge: Callable[[Draft], Measured],
    target: Target,
    least: float,
    *,
    now: Measured,
    told: Callable[[Tried], None] = lambda tried: None,
    finished: Callable[[Step, Draft], None] = lambda step, draft: None,
) -> tuple[Draft, Measured]:
    """Take one step after another until the target is met or none is left.

    A step goes on to cheaper drafts while the quality is at least `least`; the cheapest of those is
    kept, if it is cheaper than what it was made from or as good.

    Args:
        judge: measures a draft.
        now: what the draft gives.
        told: is called with each draft that was tried.
        finished: with each step that is over, and what it left.

    Returns:
        The last draft and what it gives; the target may be missed.
    """
    for step in steps:
        if target.met(now):
            break
        before = now
        for what, candidate in step.candidates(draft):
            found = judge(candidate)
            cheaper = found.macs < before.macs or found.bytes < before.bytes
            kept = found.quality >= (least if cheaper else max(least, before.quality))
            told(Tried(step.name, what, found, kept))
            if not kept:
                break
            draft, now = candidate, found
            if target.met(now):
                break
        finished(step, draft)
    return draft, now

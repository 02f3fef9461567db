# SPDX-License-Identifier: Apache-2.0
"""Choose the best variant that is expected to keep within limits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..progress import format_seconds
from .deadline import OutOfTime, deadline
from .variants import Variant

MARGIN = 0.9
"""Share of a limit that what is expected may take: measured units vary."""


@dataclass(frozen=True)
class Limits:
    """What a run may take; None is not limited.

    Attributes:
        seconds: of the whole run, from now on, by the clock.
        memory: bytes at the peak, of the whole process.
        macs: multiply-accumulates of one unit (tile, case, flow, channel).
    """

    seconds: float | None = None
    memory: int | None = None
    macs: float | None = None

    def __bool__(self) -> bool:
        return not (self.seconds is self.memory is self.macs is None)


@dataclass(frozen=True)
class Expected:
    """What a run will take: the memory as counted, the seconds as one measured unit tells.

    Attributes:
        seconds: None where time is not limited, so that nothing was measured.
        surely: the seconds are an upper bound, which was enough to know.
    """

    seconds: float | None
    memory: int
    surely: bool = False


@dataclass(frozen=True)
class Chosen:
    """A variant and what is expected of it."""

    variant: Variant
    expected: Expected

    def sentence(self, metric: str) -> str:
        """For people: what was chosen and what it will give."""
        text = f"{self.variant.name}: expects {metric} {self.variant.quality:.3f}, "
        if self.expected.seconds is not None:
            about = "at most" if self.expected.surely else "about"
            text += f"{about} {format_seconds(self.expected.seconds)}, "
        return text + format_bytes(self.expected.memory)


def choose(
    variants: Sequence[Variant],
    limits: Limits,
    *,
    memory_of: Callable[[Variant], int],
    seconds_of: Callable[[Variant], float],
    at_most_of: Callable[[Variant], float] = lambda variant: math.inf,
    spent: Callable[[], float] = lambda: 0.0,
    margin: float = MARGIN,
) -> Chosen:
    """The variant of the highest quality that keeps within a share of every limit.

    Of equal quality the one of fewer operations is taken, then that of the first name. Variants are
    measured from the best on, and no further than to the first that fits. What is not fast enough
    even where all of the time is the network's is left out unmeasured, and when the limit is over,
    measuring is broken off: nothing can fit then.

    Args:
        memory_of: bytes at the peak of the whole process; asked of all variants where memory is
            limited, else of the chosen one.
        seconds_of: of the rest of the run, from a unit that it measures; asked only where time is
            limited and the memory suffices.
        at_most_of: an upper bound of that from less work; asked first, and enough where it fits.
        spent: seconds so far, those of measuring included.
        margin: that share. Operations are counted, not measured, and may take all of theirs.

    Raises:
        InputError: none fits; the message names the smallest value of the limit that no variant
            keeps: of time about that, where measuring was broken off.
    """
    if not variants:
        raise InputError("there is no variant to choose from")
    left = sorted(variants, key=lambda item: (-item.quality, item.macs, item.name))
    if limits.macs is not None:
        least = min(variant.macs for variant in left)
        left = [variant for variant in left if variant.macs <= limits.macs]
        if not left:
            raise _nothing("--budget", format_macs(limits.macs), format_macs(least))
    trial = _Trial(left, limits, memory_of, seconds_of, at_most_of, spent, margin)
    try:
        with deadline(None if limits.seconds is None else limits.seconds - spent()):
            return trial.run()
    except OutOfTime:
        raise trial.refusal() from None


class _Trial:
    """Measures variants from the best on, see `choose`; knows at any time what it has seen."""

    def __init__(
        self,
        variants: Sequence[Variant],
        limits: Limits,
        memory_of: Callable[[Variant], int],
        seconds_of: Callable[[Variant], float],
        at_most_of: Callable[[Variant], float],
        spent: Callable[[], float],
        margin: float,
    ) -> None:
        self._variants, self._limits, self._margin = variants, limits, margin
        self._memory_of, self._seconds_of, self._spent = memory_of, seconds_of, spent
        self._at_most_of = at_most_of
        self._quickest = min(variants, key=lambda item: item.seconds)
        self._fastest: float | None = None
        self._scale = 0.0
        """Seconds here for each elsewhere."""

    def run(self) -> Chosen:
        """The first that fits; raises InputError."""
        left, limits = self._variants, self._limits
        if limits.memory is not None:
            memory = {variant.name: self._memory_of(variant) for variant in left}
            left = [item for item in left if memory[item.name] <= self._margin * limits.memory]
            if not left:
                needed = f"{math.ceil(min(memory.values()) / self._margin / 2**20)}MiB"
                raise _nothing("--max-memory", format_bytes(limits.memory), needed)
        if limits.seconds is None:
            return Chosen(left[0], Expected(None, self._memory_of(left[0])))
        most = self._margin * limits.seconds
        self._quickest = min(left, key=lambda item: item.seconds)
        for variant in left:
            if self._scale and self._spent() > most:
                break
            hopeless = self._scale and self._spent() + self._scale * variant.seconds > most
            if hopeless and variant is not self._quickest:  # whose time is to be asked for
                continue
            bound = self._at_most_of(variant) + self._spent()
            if bound <= most:
                return Chosen(variant, Expected(bound, self._memory_of(variant), surely=True))
            rest = self._seconds_of(variant)
            total = self._spent() + rest
            if total <= most:
                return Chosen(variant, Expected(total, self._memory_of(variant)))
            self._scale = rest / variant.seconds
            if variant is self._quickest:
                self._fastest = total
        raise self.refusal()

    def refusal(self) -> InputError:
        """That no variant keeps the time."""
        option, limit = "--within", format_seconds(self._limits.seconds or 0)
        about, total = "", self._fastest
        if total is None and self._scale:
            about, total = "about ", self._spent() + self._scale * self._quickest.seconds
        if total is None:
            return InputError(
                f"{option} {limit}: nothing fits; what is done on trial takes longer than that "
                "alone; allow more, or name a --variant, which does without"
            )
        return _nothing(option, limit, f"{about}{math.ceil(100 * total / self._margin) / 100:g}s")


def _nothing(option: str, limit: str, least: str) -> InputError:
    return InputError(f"{option} {limit}: nothing fits; the smallest that does here is {least}")


def format_bytes(amount: float) -> str:
    """Bytes as people read them: 812 MiB, 1.5 GiB."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def format_macs(amount: float) -> str:
    """Multiply-accumulates as people read them: 3.1 GMAC, 210 MMAC."""
    for unit, size in (("GMAC", 1e9), ("MMAC", 1e6), ("kMAC", 1e3)):
        if amount >= size:
            return f"{amount / size:.3g} {unit}"
    return f"{amount:.3g} MAC"

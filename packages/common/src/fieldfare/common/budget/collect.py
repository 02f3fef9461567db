# SPDX-License-Identifier: Apache-2.0
"""Measure the variants of a task; the scripts in benchmarks/ keep what comes of it."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from ..console import say
from . import latency
from .latency import Unit
from .variants import Variant, Variants

Settings = Mapping[str, Any]


def collect(
    task: str,
    plans: Mapping[str, Settings],
    *,
    unit: str,
    metric: str,
    quality: Callable[[Settings], float],
    weights: Callable[[Settings], int],
    share: Callable[[Settings], float] = lambda settings: 1.0,
    macs: Callable[[Settings], int] | None = None,
    digits: int = 3,
    only_named: Callable[[Settings], bool] = lambda settings: False,
    repeats: int = 5,
) -> Variants:
    """Of every plan its quality, its operations, and the time and memory of one unit.

    Time is the processor's, on the threads that torch uses, the plans in turn, the smallest of
    several. Operations are those that torch does in one unit.

    Args:
        plans: settings by the variant's name.
        unit, metric: in words, see `Variants`.
        weights: bytes of the weight files.
        share: runs of the task's unit that what `unit` says takes.
        macs: multiply-accumulates of one unit, where it is not torch that does them.
        digits: of quality; of what is equal in them the cheaper one is taken.
        only_named: see `Variant`.
    """
    from ..efficiency import bench

    prepare = latency.units_of(task)
    units = {name: prepare(settings) for name, settings in plans.items()}
    seconds = latency.measure(units, repeats=repeats)
    found = []
    for name, settings in plans.items():
        runs = share(settings)
        counted = operations(units[name]) if macs is None else macs(settings)
        found.append(
            Variant(
                name,
                settings,
                round(quality(settings), digits),
                round(runs * counted),
                weights(settings),
                round(runs * seconds[name], 6),
                bench(units[name], repeats=2, warmup=0).peak_bytes,
                only_named(settings),
            )
        )
        say(str(found[-1]))
    return Variants(task, unit, metric, latency.machine(), tuple(found))


def operations(unit: Unit) -> int:
    """Multiply-accumulates that torch does in a unit, as `efficiency.cost` counts them."""
    with FlopCounterMode(display=False) as counter:
        unit()
    return int(counter.get_total_flops()) // 2

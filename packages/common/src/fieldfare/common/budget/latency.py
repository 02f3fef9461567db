# SPDX-License-Identifier: Apache-2.0
"""How long one unit of each variant takes on this machine.

Calls are interleaved and the smallest processor time counts: what else the machine does makes calls
longer, never shorter (wall time of a whole network was up to 3.6 times the sum of its parts on a
shared machine).
"""

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import InputError, RunError

GROUP = "fieldfare.tasks"
"""Entry points: task -> function(settings of a variant) -> function that runs one unit."""

CPU_INFO = Path("/proc/cpuinfo")

Unit = Callable[[], object]


def units_of(task: str) -> Callable[[Mapping[str, Any]], Unit]:
    """What makes a variant's unit ready to run.

    Raises:
        InputError: no installed package can run the task.
    """
    for point in entry_points(group=GROUP, name=task):
        found: Callable[[Mapping[str, Any]], Unit] = point.load()
        return found
    raise InputError(f"{task}: its package runs no unit alone; leave out --measure")


def measure(
    units: Mapping[str, Unit],
    *,
    repeats: int = 5,
    told: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Processor seconds of one unit each, the smallest of several, all in turn after a warm-up.

    With one thread and an idle machine that is wall time.

    Args:
        told: is called with the number of finished calls.
    """
    best = dict.fromkeys(units, math.inf)
    for number in range(repeats + 1):
        for place, (name, unit) in enumerate(units.items()):
            began = time.process_time()
            unit()
            if number:
                best[name] = min(best[name], time.process_time() - began)
            told(number * len(units) + place + 1)
    return best


def overload() -> str | None:
    """That more is running than there are cores, in words; None where it is not so."""
    if not hasattr(os, "getloadavg"):
        return None
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"{load:.1f} processes run on {cores} cores" if load > cores else None


def refuse_load() -> None:
    """Raise RunError where more is running than there are cores."""
    if (load := overload()) is not None:
        raise RunError(
            f"{load}; what is measured now would be wrong: wait until the machine is idle"
        )


def machine() -> str:
    """The processor's name, and the threads that torch uses."""
    import torch

    name = platform.processor() or platform.machine()
    if CPU_INFO.exists():
        models = [line for line in CPU_INFO.read_text().splitlines() if "model name" in line]
        name = models[0].split(":", 1)[1].strip() if models else name
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"

# SPDX-License-Identifier: Apache-2.0
"""What a network costs before it is trained: counted operations, or time measured here."""

import functools
from collections.abc import Sequence
from pathlib import Path

from ..budget import latency
from ..elastic.genes import Choice
from ..search.cache import Cached
from ..search.evaluations import Cost
from ..search.tasks import Task

REPEATS = 5


def cost_of(task: Task, kind: str, folder: Path) -> Cost:
    """The cost of a choice by kind: `macs` or `seconds`.

    Seconds are those of one unit on this machine, the least of some calls; every network is
    measured once and `seconds.jsonl` keeps it. Genes of the recipe cost nothing.

    Raises:
        InputError: the file was measured on another machine.
        RunError: the machine has too much else to do for a measurement.
    """
    fixed = {gene: task.space.genes[gene][0] for gene in task.recipe}

    def bare(choice: Choice) -> Choice:
        return task.space.canonical({**choice, **fixed})

    if kind == "macs":
        counted = functools.cache(task.macs)
        return lambda choice: counted(bare(choice))

    def measure(choices: Sequence[Choice]) -> list[list[float]]:
        units = {str(number): task.runner(choice) for number, choice in enumerate(choices)}
        return [[value] for value in latency.measure(units, repeats=REPEATS).values()]

    latency.refuse_load()
    known = Cached(measure, folder / "seconds.jsonl", latency.machine())
    return lambda choice: float(known([bare(choice)])[0, 0])

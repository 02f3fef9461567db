# SPDX-License-Identifier: Apache-2.0
"""Networks trained one after the other, each kept on disk while no other beats it."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..console import say
from ..elastic.genes import Choice
from ..errors import RunError
from .pareto import ranks
from .tasks import Task

Cost = Callable[[Choice], float]
Train = Callable[[Sequence[Choice]], Iterable[list[float]]]
"""Choices to their rows (shortfall, seconds), in order; files are written on the way."""


def network_name(choice: Choice) -> str:
    """Of a choice's file: the same choice, the same name."""
    text = json.dumps(dict(choice), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class Evaluations:
    """A task's short runs, one row (shortfall, seconds) each: 1 - quality and what the run took.

    Args:
        cost: of one unit.
        folder: receives `networks/NAME.safetensors` and checkpoints in `unfinished/NAME`.

    Attributes:
        told: called after every run with the best quality so far.
        train: how choices are trained: one by one, or by worker processes.
    """

    def __init__(self, task: Task, cost: Cost, folder: Path) -> None:
        self.told: Callable[[float], None] = lambda best: None
        self.train: Train = self._one_by_one
        self._task, self._cost = task, cost
        self._networks, self._unfinished = folder / "networks", folder / "unfinished"
        self._known: dict[Choice, tuple[float, float]] = {}

    def __call__(self, choices: Sequence[Choice]) -> Iterator[list[float]]:
        """One row after the other, so that none is lost where a batch is broken off."""
        for choice, row in zip(choices, self.train(choices), strict=True):
            self._known[choice] = (row[0], self._cost(choice))
            self.told(1 - min(known for known, _ in self._known.values()))
            self.keep(self._known)
            yield row

    def _one_by_one(self, choices: Sequence[Choice]) -> Iterator[list[float]]:
        for choice in choices:
            yield self.renew(choice)

    def renew(self, choice: Choice) -> list[float]:
        """Train one, write its file; its row.

        One whose training fails (a loss that is no number) is worth nothing and has no file.
        """
        target, began = self.path(choice), time.monotonic()
        target.parent.mkdir(parents=True, exist_ok=True)
        work = self._unfinished / target.stem
        try:
            quality = self._task.evaluate(choice, target, work)
        except RunError as error:
            say(f"{dict(choice)}: {error}; counted as worth nothing")
            quality = 0.0
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are in it
            self._unfinished.rmdir()
        return [1 - quality, time.monotonic() - began]

    def path(self, choice: Choice) -> Path:
        """Of a network's weights."""
        return self._networks / f"{network_name(choice)}.safetensors"

    def keep(self, known: dict[Choice, tuple[float, float]]) -> list[Choice]:
        """Remove the files of networks that another one beats; those that none beats.

        Args:
            known: choice to its shortfall and cost.
        """
        order = list(known)
        found = ranks(np.array([known[choice] for choice in order]))
        for choice, rank in zip(order, found, strict=True):
            if rank:
                self.path(choice).unlink(missing_ok=True)
                self.path(choice).with_suffix(".md").unlink(missing_ok=True)
        return [choice for choice, rank in zip(order, found, strict=True) if not rank]

# SPDX-License-Identifier: Apache-2.0
"""The run of `fieldfare search`: evaluations, the report, the networks that are kept."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import console
from ..budget.choose import format_macs
from ..elastic.genes import Choice, Space
from ..errors import InputError, RunError
from ..files import atomic_path
from ..progress import Progress
from ..search.cache import Cached
from ..search.evaluations import Cost, Evaluations
from ..search.report import write_report
from ..search.run import History, Problem, Strategy, search
from ..search.strategies.controller import Controller
from ..search.strategies.evolution import Evolution
from ..search.strategies.nsga import NSGA2
from ..search.strategies.predictor import Predictor
from ..search.strategies.random import Random
from ..search.tasks import Task
from ..search.verdict import verdict
from .search_options import SearchOptions
from .search_workers import MakeTrainer, train_in_workers

BATCH = 4
"""Networks between two lessons of a strategy; as many as there are workers where those are more."""

HAND_MADE, MODEL = "hand-made", "model.safetensors"


@dataclasses.dataclass
class Searching:
    """One search of one task.

    Attributes:
        make: makes the task again, for worker processes.
        kind: of cost: `macs` or `seconds`.
        cost: of one unit, by choice.
        folder: of all that is written.
    """

    name: str
    make: Callable[[], Task]
    task: Task
    kind: str
    cost: Cost
    folder: Path
    options: SearchOptions

    def __post_init__(self) -> None:
        settings = {"task": self.name, "seed": self.options.seed, **self.task.identity}
        self.evaluations = Evaluations(self.task, self.cost, self.folder)
        self.known = Cached(
            self.evaluations,
            self.folder / "evaluations.jsonl",
            json.dumps(settings, sort_keys=True),
        )
        options, limit = self.options, self.options.limit
        if options.workers > 1 or options.engine != "local":
            self.evaluations.train = train_in_workers(
                MakeTrainer(self.make, self.folder.absolute()),
                self.folder / "workers",
                engine=options.engine,
                workers=options.workers,
            )
        self.limits = {limit.kind: limit.amount} if limit else {}

    def shown(self, cost: float) -> str:
        """A cost for people."""
        return format_macs(cost) if self.kind == "macs" else f"{1e3 * cost:.3g} ms"

    def check_limit(self) -> None:
        """Refuse a limit that no network keeps, before any work."""
        least = self.cost(self.task.space.smallest())
        for limit in self.limits.values():
            if least > limit:
                raise InputError(
                    f"--limit {self.shown(limit)}: nothing fits; the smallest network takes "
                    f"{self.shown(least)} ({self.task.unit})"
                )

    def fits(self, choice: Choice) -> bool:
        """Whether a network may be evaluated."""
        return all(self.cost(choice) <= limit for limit in self.limits.values())

    def presets(self) -> dict[str, Choice]:
        """Those made by hand that may be evaluated."""
        return {name: choice for name, choice in self.task.presets.items() if self.fits(choice)}

    def evaluate(self, choices: Sequence[Choice]) -> NDArray[np.float64]:
        """(count, 2): shortfall and cost."""
        shortfall = self.known(choices)[:, 0]
        return np.stack([shortfall, [self.cost(choice) for choice in choices]], axis=1)

    def run(self) -> None:
        """All evaluations, then the report."""
        options, presets = self.options, self.presets()
        strategy, seed = options.strategy, options.seed
        made: dict[str, Strategy] = {
            "random": Random(self.task.space, 2 * seed + 1),
            strategy: make_strategy(strategy, self.task.space, 2 * seed, options.evaluations),
        }
        problem = Problem(
            self.task.space,
            ("shortfall", self.kind),
            self.evaluate,
            lambda choice: {self.kind: self.cost(choice)},
        )
        total = 2 * options.evaluations + len(presets)
        bar = Progress("search", total, unit="network", done=len(self.known), quiet=options.quiet)
        self.evaluations.told = lambda best: bar.update(len(self.known) + 1, best=best)
        with bar:
            hand_made = History(problem.objectives)
            if presets:
                hand_made.choices = list(presets.values())
                hand_made.rows = list(self.evaluate(hand_made.choices))
            found = {
                name: search(
                    problem,
                    one,
                    budget=options.evaluations,
                    batch=max(BATCH, options.workers),
                    limits=self.limits,
                    seed=seed,
                )
                for name, one in made.items()
            }
            self.report(found, hand_made)

    def report(self, found: dict[str, History], hand_made: History) -> None:
        """Write the front and its networks, and say whether it was worth it."""
        options, task = self.options, self.task
        known = {
            choice: (float(values[0]), float(values[1]))
            for history in (*found.values(), hand_made)
            for choice, values in zip(history.choices, history.rows, strict=True)
        }
        kept = self._kept(known)
        best = min(kept, key=known.__getitem__)
        self._copy(best)
        names = {choice: name for name, choice in self.presets().items()}

        def told(choice: Choice) -> dict[str, Any]:
            path = self.evaluations.path(choice) if choice in kept else None
            return {
                "quality": 1 - known[choice][0],
                "file": str(path.relative_to(self.folder)) if path else None,
                "preset": names.get(choice),
            }

        result = write_report(
            self.folder,
            {name: history for name, history in found.items() if name != "random"},
            found["random"],
            {HAND_MADE: hand_made} if names else {},
            told=told,
            task=self.name,
            metric=task.metric,
            unit=task.unit,
            limit=self.limits,
            seed=options.seed,
            chosen={**told(best), self.kind: known[best][1], "choice": dict(best)},
        )
        against = result["against_random"][options.strategy]
        presets = {name: known[choice] for name, choice in self.presets().items()}
        lines = verdict(options.strategy, against, found, presets, self.shown)
        lines.append(f"use it: {task.command} --model {self.folder / MODEL}")
        told_all = result | {"model": self.folder / MODEL, "verdict": lines}
        console.emit(told_all, as_json=options.as_json, text="\n".join(lines))

    def _kept(self, known: dict[Choice, tuple[float, float]]) -> list[Choice]:
        """The networks that none beats, all of which have files."""
        path = self.evaluations.path
        kept = self.evaluations.keep(known)
        for choice in kept:
            if not path(choice).exists():  # beaten in another search of this folder
                self.evaluations.renew(choice)
        if trained := [choice for choice in kept if path(choice).exists()]:
            return trained
        raise RunError("the training of every network failed, as told above")

    def _copy(self, best: Choice) -> None:
        """The best network's file and page under a name that is easy to find."""
        source, target = self.evaluations.path(best), self.folder / MODEL
        for suffix in (".safetensors", ".md"):
            with atomic_path(target.with_suffix(suffix)) as temporary:
                shutil.copyfile(source.with_suffix(suffix), temporary)


def make_strategy(name: str, space: Space, seed: int, budget: int) -> Strategy:
    """A strategy by its name; what it draws at random first is a third of a small budget."""
    first = max(4, min(40, budget // 3))
    if name == "nsga":
        return NSGA2(space, seed, population=first)
    if name == "evolution":
        return Evolution(space, seed, population=first)
    if name == "controller":
        return Controller(space, seed, first=first)
    return Predictor(space, seed, first=first)

# SPDX-License-Identifier: Apache-2.0
"""fieldfare search: a strategy and random search over a task's networks."""

import contextlib
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import console
from ..elastic.genes import Choice
from ..errors import InputError
from ..progress import format_seconds
from ..runtime import resolve_device, set_threads
from ..search.evaluations import Evaluations
from ..search.tasks import Given, make_task, task_names
from .search_costs import cost_of
from .search_options import SearchOptions
from .search_run import Searching

DRAWS = 1000

FEW, MORE = 2, 10
"""Steps of the runs by which a dry run tells what a whole one takes."""


def search(name: str | None, data: Sequence[Path], options: SearchOptions) -> None:
    """Search, or list the tasks, or with `--dry-run` tell what a search would take."""
    if name is None:
        tasks = task_names()
        text = "\n".join(tasks) or "no installed package has networks to search for"
        console.emit({"tasks": tasks}, as_json=options.as_json, text=text)
        return
    if options.output is None and not options.dry_run:
        raise InputError("-o: name the folder of evaluations, front and networks")
    set_threads()
    device = resolve_device(options.device).type
    folder = None if options.dry_run else options.output
    paths = tuple(path.absolute() for path in data)
    given = Given(paths, options.steps, options.seed, device, folder and folder.absolute())
    make = functools.partial(make_task, name, given)
    task = make()
    with _folder(options) as folder:
        kind = options.limit.kind if options.limit else "macs"
        searching = Searching(name, make, task, kind, cost_of(task, kind, folder), folder, options)
        searching.check_limit()
        if options.dry_run:
            _plan(searching, given, options)
        else:
            searching.run()


@contextlib.contextmanager
def _folder(options: SearchOptions) -> Iterator[Path]:
    """That of the output; in a dry run a copy of what it knows, which goes afterwards."""
    output = options.output
    if output is not None and not options.dry_run:
        made = not output.exists()
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as refusal:
            raise InputError(
                f"{output}: cannot be made into a folder ({refusal.strerror})"
            ) from None
        try:
            yield output
        except InputError:
            if made and not any(output.iterdir()):
                output.rmdir()
            raise
        return
    with tempfile.TemporaryDirectory() as name:
        for known in output.glob("*.jsonl") if output else ():
            shutil.copy(known, name)
        yield Path(name)


def _plan(searching: Searching, given: Given, options: SearchOptions) -> None:
    """Say what the search would take."""
    space = searching.task.space
    each, how = _seconds_each(searching, given, options)
    count = 2 * options.evaluations + len(searching.presets())
    costs = [searching.cost(choice) for choice in (space.smallest(), space.largest())]
    plan: dict[str, Any] = {
        "networks": space.count(),
        "genes": {gene: list(values) for gene, values in space.genes.items()},
        "unit": searching.task.unit,
        "cost": searching.kind,
        "smallest": costs[0],
        "largest": costs[1],
        "evaluations": count,
        "seconds_each": round(each, 2),
    }
    smallest, largest = map(searching.shown, costs)
    lines = [
        f"{space.count()} networks, {smallest} to {largest} ({searching.task.unit})",
        *(f"  {gene}: {', '.join(map(str, values))}" for gene, values in space.genes.items()),
        f"{count} of them trained, {each:.3g} s each ({how})",
    ]
    seconds = each * count / options.workers
    plan["seconds"] = round(seconds, 1)
    lines.append(f"about {format_seconds(seconds)}; nothing was written")
    console.emit(plan, as_json=options.as_json, text="\n".join(lines))


def _seconds_each(searching: Searching, given: Given, options: SearchOptions) -> tuple[float, str]:
    """What a network takes, and how that is known.

    Where none was trained yet, the fewest steps tell: what a run takes besides its steps is in
    both of two short ones, so their difference is that of the steps alone. Each is run twice; the
    first time also reads the data.
    """
    known, space = searching.known, searching.task.space
    if not len(known):
        rng = np.random.default_rng(options.seed)
        draws = (space.sample(rng) for _ in range(DRAWS))
        choice = next((one for one in draws if searching.fits(one)), space.smallest())
        steps = searching.task.identity.get("steps")
        if isinstance(steps, int) and steps > MORE:
            console.say("a few steps, to know how long a network takes", quiet=options.quiet)
            few, more = (
                _short_run(searching, dataclasses.replace(given, steps=count), choice)
                for count in (FEW, MORE)
            )
            each = max(0.0, more - few) / (MORE - FEW)
            return few + (steps - FEW) * each, f"from runs of {FEW} and {MORE} steps of {steps}"
        console.say("training one network, to know how long it takes", quiet=options.quiet)
        known([choice])
    return float(known.rows()[:, 1].mean()), f"mean of {len(known)}"


def _short_run(searching: Searching, given: Given, choice: Choice) -> float:
    """Seconds of a run of so few steps."""
    task = make_task(searching.name, given)
    runs = Evaluations(task, searching.cost, searching.folder / "short")
    return min(runs.renew(choice)[1] for _ in range(2))

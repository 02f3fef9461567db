# SPDX-License-Identifier: Apache-2.0
"""fieldfare search: a strategy and random search over a task's networks."""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import console
from ..errors import InputError
from ..progress import format_seconds
from ..runtime import resolve_device, set_threads
from ..search.tasks import Given, make_task, task_names
from .search_costs import cost_of
from .search_options import SearchOptions
from .search_run import Searching

DRAWS = 1000


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
            _plan(searching, options)
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


def _plan(searching: Searching, options: SearchOptions) -> None:
    """Say what the search would take; one network is trained for it where none is known."""
    space, known = searching.task.space, searching.known
    if not len(known):
        console.say("training one network, to know how long it takes", quiet=options.quiet)
        rng = np.random.default_rng(options.seed)
        draws = (space.sample(rng) for _ in range(DRAWS))
        known([next((one for one in draws if searching.fits(one)), space.smallest())])
    each = float(known.rows()[:, 1].mean())
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
        f"{count} of them trained, {each:.3g} s each (mean of {len(known)})",
    ]
    seconds = each * count / options.workers
    plan["seconds"] = round(seconds, 1)
    lines.append(f"about {format_seconds(seconds)}; nothing was written")
    console.emit(plan, as_json=options.as_json, text="\n".join(lines))

# SPDX-License-Identifier: Apache-2.0
"""fieldfare elastic: one training, networks of many sizes."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import console
from ..budget import latency
from ..budget.choose import format_macs
from ..budget.front import dominated
from ..budget.variants import SUFFIX, Variant, Variants
from ..elastic.genes import Choice, Space
from ..elastic.network import ElasticNet
from ..elastic.sandwich import SandwichTask
from ..errors import InputError
from ..runtime import resolve_device, set_threads
from ..search.sizes import ElasticTask, elastic_names, make_elastic
from ..search.sizes_file import save_elastic
from ..search.tasks import Given
from ..training import fit
from .elastic_options import ElasticOptions

NETWORKS, WHOLE = "networks", "elastic.safetensors"
"""Folder of the networks in that of the run, and the file of all sizes."""

LONGEST = 40
"""Letters of a name that is still handy; what has many genes is numbered."""


def elastic(name: str | None, data: Sequence[Path], options: ElasticOptions) -> None:
    """Train, or list the tasks, or with `--dry-run` tell the sizes."""
    if name is None:
        tasks = elastic_names()
        text = "\n".join(tasks) or "no installed package has networks of many sizes"
        console.emit({"tasks": tasks}, as_json=options.as_json, text=text)
        return
    if options.output is None and not options.dry_run:
        raise InputError("-o: name the folder of the training and the networks")
    set_threads()
    device = resolve_device(options.device).type
    paths = tuple(path.absolute() for path in data)
    task = make_elastic(name, Given(paths, options.steps, options.seed, device, options.output))
    network = task.elastic(options.init)  # whose size says which others there are
    chosen = sizes_of(task, options.networks, options.seed)
    if options.dry_run or options.output is None:
        _plan(task, chosen, options)
        return
    settings = dataclasses.replace(
        task.settings,
        identity=f"{task.settings.identity} {options.draws} {options.init}",
    )
    loss = SandwichTask(task.loss, options.draws)
    trained = fit(network, task.lessons(), loss, settings, options.output, quiet=options.quiet)
    save_elastic(options.output / WHOLE, trained, task.task, task.config())
    found = _kept(task, trained, chosen, options, options.output)
    path = options.output / f"{task.task}{SUFFIX}"
    found.write(path)
    rows = _rows(found)
    text = f"{console.table(rows)}\n{task.command} --model {path} --variant {rows[-1]['size']}"
    console.emit({"variants": path, "sizes": rows}, as_json=options.as_json, text=text)


def sizes_of(task: ElasticTask, count: int, seed: int) -> list[tuple[Choice, float]]:
    """So many choices with their costs, the cheapest first: both ends, others drawn between."""
    space = task.space
    if space.count() <= count:
        chosen = set(_every(space))
    else:
        rng, chosen = np.random.default_rng(seed), {space.smallest(), space.largest()}
        while len(chosen) < count:
            chosen.add(space.sample(rng))
    return sorted(((one, task.macs(one)) for one in chosen), key=lambda pair: (pair[1], str(pair)))


def _every(space: Space) -> list[Choice]:
    """All choices of a small space."""
    values = itertools.product(*space.genes.values())
    return [space.canonical(dict(zip(space.genes, row, strict=True))) for row in values]


def titles(chosen: Sequence[tuple[Choice, float]]) -> dict[Choice, str]:
    """Of sizes, for files and `--variant`: layers4-width6, or their place by cost, size01."""
    names = ["-".join(f"{gene}{value}" for gene, value in choice.items()) for choice, _ in chosen]
    if max(map(len, names)) > LONGEST:
        digits = len(str(len(names)))
        names = [f"size{place:0{digits}}" for place in range(1, len(names) + 1)]
    return {choice: name for (choice, _), name in zip(chosen, names, strict=True)}


def _kept(
    task: ElasticTask,
    network: ElasticNet,
    chosen: Sequence[tuple[Choice, float]],
    options: ElasticOptions,
    folder: Path,
) -> Variants:
    """Extract, measure and write every size."""
    network.eval()
    (folder / NETWORKS).mkdir(exist_ok=True)
    if (load := latency.overload()) is not None:
        console.say(f"{load}; trust the operations more than the times", quiet=options.quiet)
    named = titles(chosen)
    units = {named[choice]: task.runner(choice) for choice, _ in chosen}
    seconds = latency.measure(units, repeats=options.repeats)
    rows = []
    for choice, macs in chosen:
        target = folder / NETWORKS / f"{named[choice]}.safetensors"
        quality = task.keep_size(network.extract(choice), choice, target)
        settings = task.options(f"{NETWORKS}/{target.name}")
        size = target.stat().st_size
        rows.append(
            Variant(
                named[choice],
                settings,
                round(quality, 4),
                round(macs),
                size,
                seconds[named[choice]],
            )
        )
        told = f"{named[choice]}: {quality:.4f}, {format_macs(macs)}"
        console.say(told, quiet=options.quiet)
    return Variants(task.task, task.unit, task.metric, latency.machine(), tuple(rows))


def _rows(found: Variants) -> list[dict[str, Any]]:
    return [
        {
            "size": one.name,
            "quality": one.quality,
            "operations": format_macs(one.macs),
            "ms": round(1000 * one.seconds, 3),
            "beaten": "yes" if out else "",
        }
        for one, out in zip(found.variants, dominated(found.variants), strict=True)
    ]


def _plan(
    task: ElasticTask, chosen: Sequence[tuple[Choice, float]], options: ElasticOptions
) -> None:
    plan = {
        "sizes": task.space.count(),
        "written": list(titles(chosen).values()),
        "unit": task.unit,
        "smallest": chosen[0][1],
        "largest": chosen[-1][1],
        "steps": task.settings.steps,
    }
    text = (
        f"{task.space.count()} sizes, {format_macs(chosen[0][1])} to {format_macs(chosen[-1][1])} "
        f"({task.unit}); {task.settings.steps} steps of {options.draws} of them; "
        f"{len(chosen)} written"
    )
    console.emit(plan, as_json=options.as_json, text=text)

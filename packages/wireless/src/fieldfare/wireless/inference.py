# SPDX-License-Identifier: Apache-2.0
"""`infer` of wl-precode and wl-power: one file, many through worker processes, or the plan."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from fieldfare.common import batch, console
from fieldfare.common.commands import budget
from fieldfare.common.commands.infer import check_targets, infer_many, show_plan
from fieldfare.common.console import shared
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import locate

from . import __version__
from .channels.arrays import write_arrays
from .channels.files import check_name
from .networks.kernels.notice import told_of_compiling
from .options import LEARNED, InferOptions

LEAST_S, MOST_S = 0.2, 1.0
"""For a part to tell the time of the whole: needed, and enough."""

COPIES, WRITING = 6, 3
"""Bytes held for each of a file's: itself, the result, both on their way and what a batch takes;
times that writing takes what reading does."""

Stored = TypeVar("Stored")


class Result(NamedTuple):
    """What came of a file.

    arrays: for the npz. numbers: of the file and its result, by name. text: the result in a line.
    note: what else is worth telling.
    """

    arrays: Mapping[str, Tensor | None]
    numbers: Mapping[str, float | None]
    text: str
    note: str = ""


Method = Callable[[Stored], Result]

Options = TypeVar("Options", bound=InferOptions)


@dataclasses.dataclass(frozen=True)
class Task(Generic[Stored]):
    """What a command does with files; picklable, so all is a function of a module.

    Attributes:
        name: of the weights' task.
        noun: of several files.
        result: array that outputs are named after: FOLDER/<name of the input>_<result>.npz.
        read: a file's content.
        sizes: of a content, by name; the first is the number of channels or networks.
        first: a content with that many of them alone.
        load: the method, ready to be used.
    """

    name: str
    noun: str
    result: str
    read: Callable[[Path], Stored]
    sizes: Callable[[Stored], Mapping[str, int]]
    first: Callable[[Stored, int], Stored]
    load: Callable[[], Method[Stored]]


def infer(
    inputs: Sequence[Path], options: Options, task_of: Callable[[Options], Task[Stored]]
) -> None:
    """Work on one file, or on many into a folder.

    Args:
        task_of: the task with the options of a variant.

    Raises:
        InputError: a file that is none, an output that may not be written, no such model.
        SystemExit: some of many failed.
    """
    set_threads()
    many = len(inputs) > 1 or options.output.is_dir()
    task = task_of(options)
    if not many:
        check_name(options.output)
        check_targets(inputs, {"--output": options.output}, options)
    with told_of_compiling(quiet=options.quiet):
        options, planned = budget.within(
            task.name,
            options,
            inputs,
            lambda chosen: _needs(task_of(chosen), chosen),
            workers=options.workers if many else None,
        )
    task = task_of(options)
    if many:
        outputs = {path: options.output / f"{path.stem}_{task.result}.npz" for path in inputs}
        _check_no_input(inputs, list(outputs.values()))
        infer_many(
            inputs,
            partial(_make_worker, task),
            lambda path: (outputs[path],),
            options,
            settings=_settings(options, task) | budget.record(planned),
            noun=task.noun,
            finish=lambda: budget.outcome(planned),
        )
        budget.tell(planned, options)
        return
    stored = task.read(inputs[0])
    method = task.load()
    with told_of_compiling(quiet=options.quiet):
        if options.dry_run:
            _show(stored, method, inputs[0], options, task)
            return
        result = _apply(method, stored, inputs[0])
    write_arrays(options.output, result.arrays)
    if result.note:
        console.say(result.note, quiet=options.quiet)
    found = {"output": options.output, "method": options.method, **result.numbers}
    found |= budget.outcome(planned)
    console.emit(found, as_json=options.as_json, text=f"{result.text}\n{options.output}")
    budget.tell(planned, options)


def _needs(task: Task[Stored], options: InferOptions) -> budget.Needs[Path]:
    """Of a file; parts of it are done on trial."""

    def seconds(path: Path) -> float:
        began = time.perf_counter()
        stored = task.read(path)
        reading = time.perf_counter() - began
        method = task.load()
        found = _measure(
            lambda part: _apply(method, task.first(stored, part), path),
            next(iter(task.sizes(stored).values())),
            options.batch,
        )
        return found.seconds + (1 + WRITING) * reading

    return budget.Needs(lambda path: COPIES * path.stat().st_size, seconds)


def _check_no_input(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    for output in outputs:
        if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
            raise InputError(f"{output}: is an input; choose another folder")


def _make_worker(task: Task[Stored]) -> batch.Process:
    """Load the method once; the returned function works on one file."""
    set_threads()
    method = task.load()

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        source = item.inputs[0]
        result = _apply(method, task.read(source), source)
        write_arrays(temporaries[0], result.arrays)
        return {name: value for name, value in result.numbers.items() if value is not None}

    return process


def _apply(method: Method[Stored], stored: Stored, source: Path) -> Result:
    try:
        return method(stored)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _settings(options: InferOptions, task: Task[Stored]) -> dict[str, Any]:
    """All that a result depends on."""
    kinds = (shared.InferOptions, shared.BudgetOptions)
    not_it = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    not_it |= {"batch", "model"}
    found = {name: _content(value) for name, value in vars(options).items() if name not in not_it}
    if options.method == LEARNED:
        weights = locate(options.model, task.name).read_bytes()
        found["weights"] = hashlib.sha256(weights).hexdigest()
    return found | {"version": __version__}


def _content(value: Any) -> Any:
    """Of a file what is in it, and not its name."""
    return hashlib.sha256(value.read_bytes()).hexdigest() if isinstance(value, Path) else value


class _Measured(NamedTuple):
    """seconds: of the whole work. peak_bytes: of a batch. output_bytes: of all arrays."""

    seconds: float
    peak_bytes: int
    output_bytes: int


def _measure(run: Callable[[int], Result], count: int, batch: int) -> _Measured:
    """What parts promise of the whole.

    A batch costs something, and each item in it more: parts grow until one takes long enough and
    over twice as long as the one before it, or very long. Both costs come of these two.

    Args:
        run: on so many.
        count: of all; batch: at a time.
    """
    from fieldfare.common.efficiency.bench import bench

    most = min(batch, count)
    result = run(1)  # the first also loads libraries
    written = sum(part.nbytes for part in result.arrays.values() if part is not None)
    parts = [(0, 0.0, 0)]
    size, enough = 1, LEAST_S
    while True:
        found = bench(run, size, repeats=2, warmup=0)
        parts.append((size, found.median_s, found.peak_bytes or 0))
        if size == most or (size > 1 and found.median_s > enough):
            break
        size, enough = min(4 * size, most), min(MOST_S, max(LEAST_S, 2 * found.median_s))
    (few, short, low), (many, long, high) = parts[-2:]
    each, fixed = _line(few, short, many, long)
    peak_each, peak_fixed = _line(few, low, many, high)
    return _Measured(
        seconds=count * each + math.ceil(count / most) * fixed,
        peak_bytes=round(most * peak_each + peak_fixed),
        output_bytes=written * count,
    )


def _line(few: int, low: float, many: int, high: float) -> tuple[float, float]:
    """What each costs, and what all cost together, at least 0, from two measurements."""
    each = max(0.0, high - low) / (many - few)
    return each, max(0.0, high - many * each)


def _show(
    stored: Stored, method: Method[Stored], source: Path, options: InferOptions, task: Task[Stored]
) -> None:
    """Print what would be done, how long it would take, and how much memory."""
    sizes = task.sizes(stored)
    count = next(iter(sizes.values()))
    found = _measure(
        lambda part: _apply(method, task.first(stored, part), source), count, options.batch
    )
    memory = source.stat().st_size + found.output_bytes + found.peak_bytes
    plan = {
        "input": source,
        "output": options.output,
        "method": options.method,
        **sizes,
        "batch": options.batch,
        "output_bytes": found.output_bytes,
        "memory_bytes": memory,
    }
    given = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in sizes.items())
    lines = [
        f"{source}: {given}",
        f"{options.output}: {_mebibytes(found.output_bytes)}, by {options.method}, "
        f"{options.batch} at a time",
        f"about {_mebibytes(memory)} of memory beside what torch takes",
    ]
    show_plan(plan, options, seconds=found.seconds, lines=lines)


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:.3g} MiB"

# SPDX-License-Identifier: Apache-2.0
"""`infer`: checks of outputs, the plan of a dry run, many inputs through worker processes."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import batch, console, files
from ..console.shared import ManyOptions
from ..errors import InputError
from ..progress import format_seconds


def check_targets(
    sources: Iterable[Path], targets: Mapping[str, Path | None], options: ManyOptions
) -> None:
    """Refuse outputs before work begins; with `--dry-run` they may exist.

    Args:
        sources: every file that is read.
        targets: the option that names an output to its path, None where it was not given.

    Raises:
        InputError: an output exists and may not be replaced, is an input, or is another output.
    """
    inputs = [source for source in sources if source.exists()]
    seen: dict[Path, str] = {}
    for name, target in targets.items():
        if target is None:
            continue
        first = seen.setdefault(target.resolve(), name)
        if first != name:
            raise InputError(f"{target}: {first} and {name} are one file; name two")
        if target.exists() and any(target.samefile(source) for source in inputs):
            raise InputError(f"{target}: is an input; choose another output")
        if not options.dry_run:
            files.check_output(target, overwrite=options.overwrite)


def show_plan(
    plan: Mapping[str, Any],
    options: ManyOptions,
    *,
    seconds: float | None = None,
    lines: Sequence[str] = (),
) -> None:
    """Print what `--dry-run` found.

    Args:
        plan: what JSON shall hold.
        seconds: that the whole will take, where it is known.
        lines: for people, instead of the plan's entries.
    """
    result = dict(plan)
    text = list(lines) or [f"{name}: {value}" for name, value in plan.items()]
    about = ""
    if seconds is not None:
        result["seconds"] = round(seconds, 1)
        about = f"about {format_seconds(seconds)}; "
    text.append(f"{about}nothing was written")
    console.emit(result, as_json=options.as_json, text="\n".join(text))


def seconds_of(run: Callable[[], object], *, count: float = 1, warm_up: bool = True) -> float:
    """The time that `count` runs like this one will take, from one that is measured.

    Args:
        warm_up: run it once before, for the first run also allocates.
    """
    if warm_up:
        run()
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * count


def input_key(path: Path) -> str:
    """The name of a file without its last suffix, of a folder as it is."""
    return path.resolve().name if path.is_dir() else path.stem


def infer_many(
    inputs: Sequence[Path],
    make_worker: batch.MakeWorker,
    outputs_of: Callable[[Path], tuple[Path, ...]],
    options: ManyOptions,
    *,
    settings: Mapping[str, Any],
    noun: str = "inputs",
    key: Callable[[Path], str] = input_key,
    files_of: Callable[[Path], Sequence[Path]] = lambda path: (path,),
    finish: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Work through inputs, each to its outputs in the folder `options.output`; print the summary.

    Args:
        make_worker: see `batch.run`; must be picklable.
        outputs_of: the outputs of one input.
        settings: what the results depend on.
        noun: for messages.
        key: the name of an input, the same from run to run.
        files_of: every file that an input is read from: where one has changed, it is done anew.
        finish: called when all are through; what else the result shall hold.

    Raises:
        InputError: two inputs would have one output, or the folder cannot be made.
        SystemExit: some or all inputs failed; the code is that of `batch.Summary`.
    """
    folder = options.output
    keys = [key(path) for path in inputs]
    if twice := next((name for name in keys if keys.count(name) > 1), None):
        raise InputError(f"two {noun} are named {twice}; their outputs would be one file")
    if options.dry_run:
        _show_batch(inputs, keys, outputs_of, options)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        reason = refusal.strerror
        raise InputError(f"{folder}: cannot be made into a folder ({reason})") from None
    items = [
        batch.Item(
            key=name,
            inputs=tuple(files_of(path)),
            outputs=outputs_of(path),
            cost=sum(file.stat().st_size for file in files_of(path) if file.is_file()),
        )
        for name, path in zip(keys, inputs, strict=True)
    ]
    summary = batch.run(
        items,
        make_worker,
        folder,
        engine=options.engine,
        workers=options.workers,
        gpus_per_worker=options.gpus_per_worker,
        retries=options.retries,
        resume=options.resume,
        overwrite=options.overwrite,
        settings=settings,
        progress=(lambda _: None) if options.quiet else None,
    )
    for name, text in summary.errors.items():
        console.say(f"failed: {name}: {text}")
    result = {
        name: getattr(summary, name)
        for name in ("done", "failed", "skipped", "seconds", "manifest")
    }
    result |= finish()
    text = f"{summary.done} done, {summary.skipped} done before, {summary.failed} failed: {folder}"
    console.emit(result, as_json=options.as_json, text=text)
    if summary.exit_code:
        raise SystemExit(summary.exit_code)


def _show_batch(
    inputs: Sequence[Path],
    keys: Sequence[str],
    outputs_of: Callable[[Path], tuple[Path, ...]],
    options: ManyOptions,
) -> None:
    """What would be read and written, and what stands in the way."""
    rows = []
    for key, path in zip(keys, inputs, strict=True):
        outputs = outputs_of(path)
        state = "missing" if not path.exists() else "to do"
        if state == "to do" and any(output.exists() for output in outputs):
            state = "output exists"
        rows.append({"input": key, "outputs": ", ".join(map(str, outputs)), "state": state})
    show_plan({"inputs": rows}, options, lines=console.table(rows).splitlines())

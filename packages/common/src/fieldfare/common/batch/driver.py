# SPDX-License-Identifier: Apache-2.0
"""Run many items: plan, hand out, record. See docs/batch.md."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from fieldfare.common.errors import InputError

from .dispatch import Dispatcher, Job, Lane
from .items import Item, MakeWorker, Summary
from .manifest import Manifest, Stamps, input_stamps
from .progress import Progress, ProgressLine, Tally
from .temporaries import remove_stale
from .worker import Outcome

ENGINES = ("local", "ray")


def run(
    items: Iterable[Item],
    make_worker: MakeWorker,
    out: str | os.PathLike[str],
    *,
    engine: str = "local",
    workers: int = 1,
    gpus_per_worker: float = 0.0,
    retries: int = 2,
    resume: bool = True,
    overwrite: bool = False,
    settings: Mapping[str, Any],
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Process every item in worker processes; a bad item never stops the others.

    Args:
        items: taken one by one as workers become free; may be a generator. A list lets the
            progress line tell the time left.
        make_worker: picklable; called once in each worker, loads the weights and returns
            process(item, temporaries).
        out: folder of manifest.jsonl; made when missing. Outputs may lie anywhere.
        engine: local (processes on this machine) or ray.
        workers: processes that work at the same time.
        gpus_per_worker: GPUs of each, or a part of one. With 0, local workers see every GPU and
            Ray workers none.
        retries: further attempts for an item whose worker died or that met an OSError. Any other
            exception fails the item at once.
        resume: skip items done before: same inputs (size and time), outputs of the recorded size.
        overwrite: whether files the manifest knows nothing about, and outputs of a run with
            other settings, may be replaced.
        settings: everything the outputs depend on (options, model and hash of its weights), fit
            for JSON.
        progress: called about once a second or after each item; by default a line on stderr.

    Returns:
        Counts, errors of the failed items, and the exit code for the command.

    Raises:
        InputError: bad options, two items with one key or one output, a manifest with other
            settings, or the model could not be loaded for a reason the user can mend.
        RunError: the model could not be loaded for another reason.
    """
    _check_options(engine, workers, gpus_per_worker, retries)
    out = Path(out).absolute()
    started = datetime.now(UTC)
    header = {
        "run": f"{started:%Y%m%dT%H%M%S}-{socket.gethostname()}-{os.getpid()}",
        "started": started.isoformat(timespec="seconds"),
        "engine": engine,
        "workers": workers,
        "retries": retries,
        "settings": dict(settings),
    }
    report = progress or ProgressLine()
    tally = Tally(items)
    with Manifest(out, header, resume=resume, overwrite=overwrite) as manifest:

        def finish(job: Job, outcome: Outcome, worker: str) -> None:
            _record(manifest, tally, job, outcome, worker)

        jobs = _plan(items, manifest, tally, overwrite=overwrite)
        try:
            first = next(jobs, None)
            if first is not None:
                if engine == "ray":
                    report(tally.progress(waiting_for="Ray to start"))
                with _open_lanes(engine, make_worker, workers, gpus_per_worker) as lanes:
                    dispatcher = Dispatcher(
                        chain([first], jobs),
                        lanes,
                        retries=retries,
                        begin=lambda job: manifest.add_started(job.item),
                        finish=finish,
                        tick=lambda: report(tally.progress(waiting_for=dispatcher.waiting_for)),
                    )
                    try:
                        dispatcher.run()
                    finally:
                        dispatcher.stop()
        finally:
            report(tally.progress(finished=True))
    return Summary(
        tally.done, tally.failed, tally.skipped, tally.seconds, manifest.path, tally.errors
    )


def _check_options(engine: str, workers: int, gpus_per_worker: float, retries: int) -> None:
    if engine not in ENGINES:
        raise InputError(f"--engine {engine}: choose one of {', '.join(ENGINES)}")
    if workers < 1:
        raise InputError(f"--workers {workers}: at least 1 is needed")
    if retries < 0:
        raise InputError(f"--retries {retries}: must not be negative")
    if gpus_per_worker < 0 or (gpus_per_worker > 1 and gpus_per_worker % 1):
        raise InputError(
            f"--gpus-per-worker {gpus_per_worker:g}: give a whole number or a part of one GPU"
        )
    if engine == "ray":
        from .ray_engine import require_ray

        require_ray()


def _open_lanes(
    engine: str, make_worker: MakeWorker, workers: int, gpus_per_worker: float
) -> AbstractContextManager[Sequence[Lane]]:
    if engine == "ray":
        from . import ray_engine

        return ray_engine.open_lanes(make_worker, workers, gpus_per_worker)
    from . import local

    return local.open_lanes(make_worker, workers, gpus_per_worker)


def _plan(
    items: Iterable[Item], manifest: Manifest, tally: Tally, *, overwrite: bool
) -> Iterator[Job]:
    """The items that need work; the others are counted (and recorded when they cannot run)."""
    keys: set[str] = set()
    outputs: dict[Path, str] = {}
    parents: set[Path] = set()
    for item in items:
        if item.key in keys:
            raise InputError(f"two items are named {item.key}; names must differ")
        keys.add(item.key)
        for output in item.outputs:
            if output in outputs:
                raise InputError(f"{output}: written by both {outputs[output]} and {item.key}")
            outputs[output] = item.key
            if output.parent not in parents:
                parents.add(output.parent)
                remove_stale(output.parent)
        stamps: Stamps = ()
        refusal = ""
        try:
            stamps = input_stamps(item)
        except OSError as error:
            refusal = f"{error.filename}: {error.strerror}"
        if not refusal and manifest.is_done(item, stamps):
            tally.add_skipped(item)
            continue
        if not refusal and not overwrite and not manifest.has_started(item):
            existing = next((output for output in item.outputs if output.exists()), None)
            if existing:
                refusal = f"{existing}: already exists; add --overwrite or move it away"
        if refusal:
            _record(manifest, tally, Job(item, stamps), Outcome(None, error=refusal), "")
        else:
            yield Job(item, stamps)


def _record(manifest: Manifest, tally: Tally, job: Job, outcome: Outcome, worker: str) -> None:
    manifest.add(job.item, job.stamps, outcome, attempts=job.attempts, worker=worker)
    if outcome.error:
        tally.add_failed(job.item, outcome.error)
    else:
        tally.add_done(job.item)

# SPDX-License-Identifier: Apache-2.0
"""med-seg infer over several cases, through `fieldfare.common.batch`."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fieldfare.common import batch, console
from fieldfare.common.errors import InputError
from fieldfare.common.weights import locate

from .. import __version__
from ..data.cases import find_case
from ..data.regions import sidecar_path
from ..inference import memory
from ..inference import run as inference
from ..inference.predict import load_predictor
from ..inference.record import record
from ..networks.models import TASK

SINGLE = ("prob", "report", "png", "viewer", "dry_run")


def infer_many(
    cases: Sequence[Path],
    folder: Path,
    settings: inference.InferSettings,
    options: dict[str, Any],
) -> None:
    """Segment case folders into a folder and print the summary.

    Raises:
        InputError: an option that takes one case, two folders of one name, a wrong model, or a
            folder that cannot be made.
        SystemExit: some or all cases failed; the code is that of `batch.Summary`.
    """
    if single := next((name for name in SINGLE if options[name]), None):
        raise InputError(f"--{single.replace('_', '-')}: takes one case and a file to write")
    paths = [path.resolve() for path in cases]
    names = [path.name for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two cases are named {twice}; their labels would be one file")
    kept = {name: options[name] for name in ("model", "device", "precision", "tta")}
    make_worker = functools.partial(_make_worker, settings, kept)
    make_worker()  # so that a wrong model is refused once, before any worker starts
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{folder}: cannot be made into a folder ({reason})") from None
    items = []
    for path, name in zip(paths, names, strict=True):
        labels = folder / f"{name}_seg.nii.gz"
        items.append(batch.Item(name, (path,), (labels, sidecar_path(labels))))
    digest = hashlib.sha256(locate(options["model"], TASK).read_bytes()).hexdigest()
    result_of = asdict(replace(settings, batch=None, max_memory=None))
    summary = batch.run(
        items,
        make_worker,
        folder,
        engine=options["engine"],
        workers=options["workers"],
        gpus_per_worker=options["gpus_per_worker"],
        retries=options["retries"],
        resume=options["resume"],
        overwrite=options["overwrite"],
        settings={**result_of, "tta": options["tta"], "weights": digest, "version": __version__},
        progress=(lambda _: None) if options["quiet"] else None,
    )
    for key, text in summary.errors.items():
        console.say(f"failed: {key}: {text}")
    keys = ("done", "failed", "skipped", "seconds", "manifest")
    result = {name: getattr(summary, name) for name in keys}
    text = f"{summary.done} done, {summary.skipped} done before, {summary.failed} failed: {folder}"
    console.emit(result, as_json=options["as_json"], text=text)
    if summary.exit_code:
        raise SystemExit(summary.exit_code)


def _make_worker(settings: inference.InferSettings, options: dict[str, Any]) -> batch.Process:
    """Load the model once; the returned function segments one case."""
    predictor, card = load_predictor(
        options["model"],
        device=options["device"],
        precision=options["precision"],
        tta=options["tta"],
    )

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        memory.reset_peak()
        job = inference.open_case(find_case(item.inputs[0]), settings, predictor)
        plan = inference.plan(job, settings, predictor)
        result = inference.segment(job, settings, predictor, plan)
        inference.write(temporaries[0], result, **record(job, settings, card, tta=options["tta"]))
        return {"seconds": result.seconds, "peak_bytes": float(memory.peak())}

    return process

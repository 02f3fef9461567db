# SPDX-License-Identifier: Apache-2.0
"""med-seg infer over many cases: each to its files in folders, and one page that lists them."""

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fieldfare.common import batch, console
from fieldfare.common.batch.manifest import NAME as MANIFEST
from fieldfare.common.commands import budget
from fieldfare.common.commands.infer import infer_many
from fieldfare.common.errors import InputError
from fieldfare.common.weights import locate

from .. import __version__
from ..data.cases import Case, find_case
from ..data.regions import read_sidecar, sidecar_path
from ..inference import memory
from ..inference import run as inference
from ..inference.predict import load_predictor, split_names
from ..inference.record import doubts_of, record
from ..networks.models import TASK
from ..options import InferOptions
from ..volumes.formats import ending_of

INDEX = "index.html"


def open_inputs(path: Path, options: InferOptions) -> Case:
    """The case of a folder, or of one 4D file where `--channels` says what is in it."""
    if options.channels is None:
        return find_case(path)
    return Case.from_channels(path, options.channels.split(","))


def readable(cases: Sequence[Path], options: InferOptions) -> list[Case]:
    """The cases that can be opened; what is wrong with the others is told when their turn comes."""
    found = []
    for path in cases:
        with contextlib.suppress(InputError, OSError):
            found.append(open_inputs(path, options))
    return found


def infer_cases(
    cases: Sequence[Path],
    settings: inference.InferSettings,
    options: InferOptions,
    planned: budget.Plan | None = None,
) -> None:
    """Segment cases into a folder.

    Raises:
        InputError: an option that names a file, a wrong model, or what `infer_many` refuses.
    """
    folders = {"--prob": options.prob, "--report": options.report, "--png": options.png}
    for name, path in folders.items():
        if path is not None and (path.suffix or path.is_file()):
            raise InputError(f"{name} {path}: of several cases; name a folder for them")
    if options.viewer and options.report is None:
        raise InputError("--viewer: is part of a report; add --report")
    _check_index(options)
    # So that a wrong one is refused before anything is written.
    load_predictor(options.model, guarded=options.guard)
    files = [locate(name, TASK) for name in split_names(options.model)]
    digest = "+".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    result_of = asdict(replace(settings, batch=None, max_memory=None))
    for name in ("channels", "viewer", "strict", "guard"):
        if value := getattr(options, name):
            result_of[name] = value
    inputs = [case.resolve() for case in cases]

    def files_of(path: Path) -> Sequence[Path]:
        try:
            return open_inputs(path, options).sources
        except (InputError, OSError):
            return (path,)  # its worker says what is wrong

    infer_many(
        inputs,
        functools.partial(_make_worker, settings, options, {_key(path): path for path in inputs}),
        lambda path: tuple(_outputs(_key(path), options).values()),
        options,
        settings={
            **result_of,
            "tta": options.tta,
            "weights": digest,
            "version": __version__,
            **budget.record(planned),
        },
        noun="cases",
        key=_key,
        files_of=files_of,
        finish=lambda: {
            **_tell([_key(path) for path in inputs], options),
            **budget.outcome(planned),
        },
    )


def _index(options: InferOptions) -> Path | None:
    """The page that lists the cases: where the reports are, or else the pictures."""
    folder = options.report or options.png
    return None if folder is None else folder / INDEX


def _check_index(options: InferOptions) -> None:
    """Refuse to replace a page that is not of an earlier run."""
    page = _index(options)
    if page is None or options.overwrite or not page.exists():
        return
    if b"Fieldfare med-seg" not in page.read_bytes()[:4096]:
        raise InputError(f"{page}: already exists; choose another folder or add --overwrite")


def _key(path: Path) -> str:
    return path.name[: len(path.name) - len(ending_of(path))] if path.is_file() else path.name


def _outputs(name: str, options: InferOptions) -> dict[str, Path]:
    """The files of a case, by what they are."""
    labels = options.output / f"{name}_seg.nii.gz"
    files = {"labels": labels, "sidecar": sidecar_path(labels)}
    if options.prob is not None:
        files["prob"] = options.prob / f"{name}_prob.nii.gz"
    if options.report is not None:
        files["report"] = options.report / f"{name}.html"
    if options.png is not None:
        files["png"] = options.png / f"{name}.png"
    return files


def _make_worker(
    settings: inference.InferSettings, options: InferOptions, paths: Mapping[str, Path]
) -> batch.Process:
    """Load the model once; the returned function segments one case."""
    predictor, card = load_predictor(
        options.model,
        device=options.device,
        precision=options.precision,
        tta=options.tta,
        guarded=options.guard,
    )
    pictured = bool(options.report or options.png)
    probabilities = bool(options.prob or options.report)

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        memory.reset_peak()
        case = open_inputs(paths[item.key], options)
        job = inference.open_case(case, settings, predictor, keep_images=pictured)
        plan = inference.plan(job, settings, predictor, probabilities=probabilities)
        result = inference.segment(job, settings, predictor, plan, probabilities=probabilities)
        told = doubts_of(result, job.case.name, options)
        about = record(
            job,
            settings,
            card,
            tta=options.tta,
            judgement=result.judgement,
            agreement=result.agreement,
            warnings=told,
        )
        kinds = _outputs(item.key, options)
        files = dict(zip(kinds, temporaries, strict=True))
        inference.write(files["labels"], result, probability=files.get("prob"), **about)
        if pictured:
            from ..report.page import write_pictures

            write_pictures(
                job.images,
                result,
                report=files.get("report"),
                png=files.get("png"),
                facts=about | {"plan": result.plan.describe()},
                card=card,
                warnings=about["warnings"],
                viewer=options.viewer,
            )
        volumes = {f"{name}_ml": ml for name, ml in inference.volumes_ml(result).items()}
        trust = {}
        if result.judgement:
            trust = {
                "expected_dice": result.judgement.expected,
                "distance": result.judgement.distance,
            }
        if result.agreement:
            trust["agreement"] = result.agreement.agreement
        return {"seconds": result.seconds, "peak_bytes": float(memory.peak()), **volumes, **trust}

    return process


def _tell(names: Sequence[str], options: InferOptions) -> Mapping[str, Any]:
    """Every note of every case on the screen, and the page that lists the cases."""
    from ..report.index import Listed, numbers_of, write_index

    rows = []
    numbers = numbers_of(options.output / MANIFEST)
    for name in names:
        files = _outputs(name, options)
        if name not in numbers or not files["sidecar"].exists():
            continue
        notes = (read_sidecar(files["sidecar"]) or {}).get("warnings", [])
        rows.append(Listed(name, numbers[name], notes, files.get("report"), files.get("png")))
    for row in rows:
        for note in row.notes:
            console.say(f"warning: {row.case}: {note}")
    count, noted = sum(len(row.notes) for row in rows), sum(bool(row.notes) for row in rows)
    if count:
        console.say(f"{count} warnings, of {noted} of {len(rows)} cases")
    told: dict[str, Any] = {"warnings": count}
    page = _index(options)
    if page is not None and rows:
        told["index"] = page
        write_index(page, rows)
        console.say(f"index: {page}", quiet=options.quiet)
    return told

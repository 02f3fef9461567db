# SPDX-License-Identifier: Apache-2.0
"""med-seg infer. Not a medical device."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import batch, console
from fieldfare.common.commands.infer import check_targets, infer_many, seconds_of, show_plan
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import ModelCard, locate

from .. import __version__
from ..data.cases import MODALITIES, Case, find_case
from ..data.regions import sidecar_path
from ..inference import memory
from ..inference import run as inference
from ..inference.planning import InferencePlan
from ..inference.predict import Predictor, load_predictor
from ..inference.record import NOTICE, record
from ..networks.models import TASK, load_model
from ..options import InferOptions
from ..volumes.formats import ENDINGS


def infer(cases: Sequence[Path], options: InferOptions) -> None:
    """Segment one case, or many through `batch`."""
    set_threads()
    images = zip(MODALITIES, (options.t1, options.t1ce, options.t2, options.flair), strict=True)
    given = [name for name, path in images if path is not None]
    if cases and given:
        raise InputError(f"{cases[0]}: give a folder or --{given[0]}, not both")
    settings = inference.InferSettings(
        labels=options.labels,
        threshold=options.threshold,
        postprocess=options.postprocess,
        resample_to=options.resample_to,
        allow_missing=options.allow_missing,
        max_memory=options.max_memory,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        precision=options.precision,
    )
    if given:
        case = Case.from_files(t1=options.t1, t1ce=options.t1ce, t2=options.t2, flair=options.flair)
        _infer_one(case, settings, options)
    elif len(cases) == 1 and not options.output.is_dir():
        _infer_one(find_case(cases[0]), settings, options)
    elif cases:
        _infer_many(cases, settings, options)
    else:
        raise InputError("no case given; name its folder, or its images by --t1, --t1ce, ...")


def _infer_one(case: Case, settings: inference.InferSettings, options: InferOptions) -> None:
    quiet = options.quiet
    targets = _targets(options)
    check_targets(case.files.values(), targets, options)
    console.say(case.describe(), quiet=quiet)
    pictured = bool(options.report or options.png)
    probabilities = bool(options.prob or options.report)
    predictor, card = _load_predictor(options)
    job = inference.open_case(case, settings, predictor, keep_images=pictured)
    for note in job.notes:
        console.say(f"warning: {note}")
    plan = inference.plan(job, settings, predictor, probabilities=probabilities)
    console.say(plan.describe(), quiet=quiet)
    if options.dry_run:
        _show_plan(job, plan, predictor, list(targets.values()), options)
        return
    with Progress("segment", plan.tiles, quiet=quiet) as bar:
        result = inference.segment(
            job,
            settings,
            predictor,
            plan,
            probabilities=probabilities,
            progress=lambda done, total: bar.update(done),
        )
    about = record(job, settings, card, tta=options.tta)
    written = inference.write(options.output, result, probability=options.prob, **about)
    written += _pictures(job, result, about, card, options)
    measured = memory.peak()
    console.say(
        f"peak predicted {memory.mebibytes(plan.predicted_bytes)}, measured "
        f"{memory.mebibytes(measured)}",
        quiet=quiet,
    )
    volumes = inference.volumes_ml(result)
    found = ", ".join(f"{name} {volume:.1f} ml" for name, volume in volumes.items())
    console.say(f"{found}; {NOTICE}", quiet=quiet)
    summary = {
        **about,
        "output": options.output,
        "label_scheme": settings.labels,
        "volumes_ml": volumes,
        "seconds": round(result.seconds, 2),
        "plan": plan.to_dict(),
        "peak_bytes": measured,
        "written": written,
    }
    console.emit(summary, as_json=options.as_json, text="\n".join(map(str, written)))


def _load_predictor(options: InferOptions) -> tuple[Predictor, ModelCard]:
    return load_predictor(
        options.model, device=options.device, precision=options.precision, tta=options.tta
    )


def _targets(options: InferOptions) -> dict[str, Path]:
    """Every file that will be written, by the option that names it."""
    output = options.output
    if not output.name.lower().endswith(ENDINGS):
        raise InputError(f"{output}: cannot be written; give a name in {', '.join(ENDINGS)}")
    targets = {"--output": output, "its JSON file": sidecar_path(output)}
    for name, path, endings in (
        ("--prob", options.prob, ENDINGS[:2]),
        ("--report", options.report, (".html",)),
        ("--png", options.png, (".png",)),
    ):
        if path is None:
            continue
        if not path.name.lower().endswith(endings):
            raise InputError(f"{name} {path}: give a name in {', '.join(endings)}")
        targets[name] = path
    if options.viewer and options.report is None:
        raise InputError("--viewer: is part of a report; add --report")
    return targets


def _pictures(
    job: inference.Job,
    result: inference.Segmentation,
    about: dict[str, Any],
    card: ModelCard,
    options: InferOptions,
) -> list[Path]:
    """Write report and PNG where they are asked for."""
    if options.report is None and options.png is None:
        return []
    from ..report.page import write_png, write_report

    common: dict[str, Any] = {
        "images": job.images,
        "seg": result.labels,
        "affine": result.reference.affine,
        "scheme": result.scheme,
    }
    if options.report is not None:
        write_report(
            options.report,
            **common,
            probabilities=result.probabilities,
            facts=about | {"plan": result.plan.describe()},
            card=card,
            warnings=job.notes,
            viewer=options.viewer,
        )
    if options.png is not None:
        write_png(options.png, **common)
    return [path for path in (options.report, options.png) if path is not None]


def _show_plan(
    job: inference.Job,
    plan: InferencePlan,
    predictor: Predictor,
    outputs: list[Path],
    options: InferOptions,
) -> None:
    """Print the plan, and the time that one measured tile promises."""
    tile = np.zeros((plan.batch, len(job.prepared.images), *plan.tile), np.float32)
    seconds = seconds_of(lambda: predictor(tile), count=plan.tiles / plan.batch, warm_up=False)
    grid = "x".join(map(str, job.prepared.images.shape[1:]))
    facts = {
        "case": job.case.name,
        "files": {name: str(path) for name, path in job.case.files.items()},
        "input": str(job.reference),
        "network_grid": f"{grid} voxels of {'x'.join(f'{s:g}' for s in job.prepared.spacing)} mm",
        "warnings": job.notes,
        "outputs": [str(path) for path in outputs],
        **plan.to_dict(),
    }
    lines = [f"{name}: {facts[name]}" for name in ("case", "input", "network_grid")]
    lines += [plan.describe(), f"outputs: {', '.join(map(str, outputs))}"]
    show_plan(facts, options, seconds=seconds, lines=lines)


def _infer_many(
    cases: Sequence[Path], settings: inference.InferSettings, options: InferOptions
) -> None:
    """Segment case folders into a folder.

    Raises:
        InputError: an option that takes one case, a wrong model, or what `infer_many` refuses.
    """
    single = {
        "--prob": options.prob,
        "--report": options.report,
        "--png": options.png,
        "--viewer": options.viewer,
    }
    if name := next((name for name, value in single.items() if value), None):
        raise InputError(f"{name}: takes one case and a file to write")
    load_model(options.model)  # so that a wrong one is refused before anything is written

    def outputs_of(case: Path) -> tuple[Path, ...]:
        labels = options.output / f"{case.name}_seg.nii.gz"
        return labels, sidecar_path(labels)

    digest = hashlib.sha256(locate(options.model, TASK).read_bytes()).hexdigest()
    result_of = asdict(replace(settings, batch=None, max_memory=None))
    infer_many(
        [case.resolve() for case in cases],
        functools.partial(_make_worker, settings, options),
        outputs_of,
        options,
        settings={**result_of, "tta": options.tta, "weights": digest, "version": __version__},
        noun="cases",
    )


def _make_worker(settings: inference.InferSettings, options: InferOptions) -> batch.Process:
    """Load the model once; the returned function segments one case."""
    predictor, card = _load_predictor(options)

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        memory.reset_peak()
        job = inference.open_case(find_case(item.inputs[0]), settings, predictor)
        plan = inference.plan(job, settings, predictor)
        result = inference.segment(job, settings, predictor, plan)
        inference.write(temporaries[0], result, **record(job, settings, card, tta=options.tta))
        return {"seconds": result.seconds, "peak_bytes": float(memory.peak())}

    return process

# SPDX-License-Identifier: Apache-2.0
"""med-seg infer. Not a medical device."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fieldfare.common import console
from fieldfare.common.commands import budget
from fieldfare.common.commands.infer import check_targets, seconds_of, show_plan
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ..data.cases import Case
from ..data.naming import MODALITIES
from ..data.regions import sidecar_path
from ..inference import memory
from ..inference import run as inference
from ..inference.planning import InferencePlan, loading_bytes
from ..inference.predict import Predictor, load_predictor
from ..inference.record import NOTICE, doubts_of, record
from ..options import DEFAULT_MODEL, ENSEMBLE, ENSEMBLE_STEPS, InferOptions
from ..volumes.formats import WRITTEN
from .budget import within
from .infer_many import infer_cases, open_inputs, readable


def infer(cases: Sequence[Path], options: InferOptions) -> None:
    """Segment one case, or many through `batch`."""
    set_threads()
    options = _together(options)
    images = zip(MODALITIES, (options.t1, options.t1ce, options.t2, options.flair), strict=True)
    given = [name for name, path in images if path is not None]
    if cases and given:
        raise InputError(f"{cases[0]}: give a folder or --{given[0]}, not both")
    if options.channels is not None and not cases:
        raise InputError("--channels: name the 4D file as CASE")
    many = not given and not (
        len(cases) == 1 and options.output.suffix and not options.output.is_dir()
    )
    if given:
        opened = [
            Case.from_files(t1=options.t1, t1ce=options.t1ce, t2=options.t2, flair=options.flair)
        ]
    elif not cases:
        raise InputError("no case given; name its folder, or its images by --t1, --t1ce, ...")
    elif many:
        opened = readable(cases, options) if budget.asked(options) else []
    else:
        opened = [open_inputs(cases[0], options)]
    if not many:
        check_targets(opened[0].sources, _targets(options), options)
    planned = None
    if opened:
        options, planned = within(
            opened, options, _settings, workers=options.workers if many else None
        )
    settings = _settings(options)
    if many:
        infer_cases(cases, settings, options, planned)
    else:
        _infer_one(opened[0], settings, options, planned)
    budget.tell(planned, options)


def _settings(options: InferOptions) -> inference.InferSettings:
    return inference.InferSettings(
        labels=options.labels,
        threshold=options.threshold,
        postprocess=options.postprocess,
        resample_to=options.resample_to,
        allow_missing=options.allow_missing,
        force=options.force,
        max_memory=options.max_memory,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        precision=options.precision,
    )


def _together(options: InferOptions) -> InferOptions:
    """With `--ensemble` in words of `--model` and `--postprocess`."""
    if not options.ensemble:
        return options
    if options.model != DEFAULT_MODEL:
        raise InputError(f"--ensemble: of the packaged models; leave it or --model {options.model}")
    steps = ENSEMBLE_STEPS if options.postprocess == "none" else options.postprocess
    return replace(options, model=ENSEMBLE, postprocess=steps)


def _infer_one(
    case: Case,
    settings: inference.InferSettings,
    options: InferOptions,
    planned: budget.Plan | None,
) -> None:
    quiet = options.quiet
    targets = _targets(options)
    console.say(case.describe(), quiet=quiet)
    pictured = bool(options.report or options.png)
    probabilities = bool(options.prob or options.report)
    predictor, card = load_predictor(
        options.model,
        device=options.device,
        precision=options.precision,
        tta=options.tta,
        guarded=options.guard,
    )
    if options.dry_run:
        job = inference.outline_case(case, settings, predictor)
    else:
        job = inference.open_case(case, settings, predictor, keep_images=pictured)
    for note in job.notes:
        console.say(f"warning: {note}")
    plan = inference.plan(job, settings, predictor, probabilities=probabilities)
    console.say(plan.describe(), quiet=quiet)
    if options.dry_run:
        _show_plan(job, plan, predictor, list(targets.values()), options)
        return
    with Progress("segment", plan.tiles_in_all, quiet=quiet) as bar:
        result = inference.segment(
            job,
            settings,
            predictor,
            plan,
            probabilities=probabilities,
            progress=lambda done, total: bar.update(done),
        )
    told = doubts_of(result, case.name, options)
    for doubt in told:
        console.say(f"warning: {doubt}")
    about = record(
        job,
        settings,
        card,
        tta=options.tta,
        judgement=result.judgement,
        agreement=result.agreement,
        warnings=told,
    ) | budget.record(planned)
    written = inference.write(options.output, result, probability=options.prob, **about)
    if pictured:
        from ..report.page import write_pictures

        written += write_pictures(
            job.images,
            result,
            report=options.report,
            png=options.png,
            facts=about | {"plan": result.plan.describe()},
            card=card,
            warnings=about["warnings"],
            viewer=options.viewer,
        )
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
        **budget.outcome(planned),
    }
    console.emit(summary, as_json=options.as_json, text="\n".join(map(str, written)))


def _targets(options: InferOptions) -> dict[str, Path]:
    """Every file that will be written, by the option that names it."""
    output = options.output
    if not output.name.lower().endswith(WRITTEN):
        raise InputError(f"{output}: cannot be written; give a name in {', '.join(WRITTEN)}")
    targets = {"--output": output, "its JSON file": sidecar_path(output)}
    for name, path, endings in (
        ("--prob", options.prob, WRITTEN[:2]),
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


def _show_plan(
    job: inference.Job,
    plan: InferencePlan,
    predictor: Predictor,
    outputs: list[Path],
    options: InferOptions,
) -> None:
    """Print the plan by the headers, and the time that one measured tile promises.

    Tiles and time are the most that they can be: those without brain will be passed over.
    """
    tile = np.zeros((plan.batch, len(job.prepared.images), *plan.tile), np.float32)
    count = plan.tiles * plan.passes / plan.batch
    seconds = seconds_of(lambda: predictor(tile), count=count, warm_up=False)
    reading = loading_bytes(math.prod(job.reference.data.shape))
    grid = "x".join(map(str, job.prepared.images.shape[1:]))
    facts = {
        "case": job.case.name,
        "files": {name: str(path) for name, path in job.case.files.items()},
        "input": str(job.reference),
        "network_grid": f"{grid} voxels of {'x'.join(f'{s:g}' for s in job.prepared.spacing)} mm",
        "loading_bytes": reading,
        "warnings": job.notes,
        "outputs": [str(path) for path in outputs],
        **plan.to_dict(),
    }
    lines = [f"{name}: {facts[name]}" for name in ("case", "input", "network_grid")]
    lines += [f"by the headers alone, at most: {plan.describe()}"]
    lines += [
        f"reading takes about {memory.mebibytes(reading)}",
        f"outputs: {', '.join(map(str, outputs))}",
    ]
    show_plan(facts, options, seconds=seconds, lines=lines)

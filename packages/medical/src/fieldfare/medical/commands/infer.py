# SPDX-License-Identifier: Apache-2.0
"""med-seg infer. Not a medical device."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import console, files
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress, format_seconds
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import ModelCard

from ..data.cases import MODALITIES, Case, find_case
from ..data.regions import sidecar_path
from ..inference import memory
from ..inference import run as inference
from ..inference.predict import Predictor, load_predictor
from ..inference.record import NOTICE, record
from ..volumes.formats import ENDINGS


def infer(cases: Sequence[Path], output: Path, options: dict[str, Any]) -> None:
    """Segment one case, or many through `batch`."""
    set_threads()
    given = {name: options[name] for name in MODALITIES if options[name] is not None}
    if cases and given:
        raise InputError(f"{cases[0]}: give a folder or --{next(iter(given))}, not both")
    settings = inference.InferSettings(
        labels=options["labels"],
        threshold=options["threshold"],
        postprocess=options["postprocess"],
        resample_to=options["resample_to"],
        allow_missing=options["allow_missing"],
        max_memory=options["max_memory"],
        tile=options["tile"],
        overlap=options["overlap"],
        batch=options["batch"],
        precision=options["precision"],
    )
    if given or (len(cases) == 1 and not output.is_dir()):
        case = Case.from_files(**given) if given else find_case(cases[0])
        _infer_one(case, output, settings, options)
    elif cases:
        from .infer_many import infer_many

        infer_many(cases, output, settings, options)
    else:
        raise InputError("no case given; name its folder, or its images by --t1, --t1ce, ...")


def _infer_one(
    case: Case, output: Path, settings: inference.InferSettings, options: dict[str, Any]
) -> None:
    quiet = options["quiet"]
    targets = _targets(output, options)
    _check_targets(targets, case, options)
    console.say(case.describe(), quiet=quiet)
    pictured = bool(options["report"] or options["png"])
    probabilities = bool(options["prob"] or options["report"])
    predictor, card = load_predictor(
        options["model"],
        device=options["device"],
        precision=options["precision"],
        tta=options["tta"],
    )
    job = inference.open_case(case, settings, predictor, keep_images=pictured)
    for note in job.notes:
        console.say(f"warning: {note}")
    plan = inference.plan(job, settings, predictor, probabilities=probabilities)
    console.say(plan.describe(), quiet=quiet)
    if options["dry_run"]:
        _show_plan(job, plan, predictor, options["as_json"])
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
    about = record(job, settings, card, tta=options["tta"])
    written = inference.write(output, result, probability=options["prob"], **about)
    written += _pictures(job, result, settings, options, card)
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
        "output": output,
        "label_scheme": settings.labels,
        "volumes_ml": volumes,
        "seconds": round(result.seconds, 2),
        "plan": plan.to_dict(),
        "peak_bytes": measured,
        "written": written,
    }
    console.emit(summary, as_json=options["as_json"], text="\n".join(map(str, written)))


def _targets(output: Path, options: dict[str, Any]) -> dict[str, Path]:
    """Every file that will be written, by the option that names it."""
    if not output.name.lower().endswith(ENDINGS):
        raise InputError(f"{output}: cannot be written; give a name in {', '.join(ENDINGS)}")
    targets = {"--output": output, "its JSON file": sidecar_path(output)}
    for name, endings in (("prob", ENDINGS[:2]), ("report", (".html",)), ("png", (".png",))):
        path = options[name]
        if path is None:
            continue
        if not path.name.lower().endswith(endings):
            raise InputError(f"--{name} {path}: give a name in {', '.join(endings)}")
        targets[f"--{name}"] = path
    if options["viewer"] and options["report"] is None:
        raise InputError("--viewer: is part of a report; add --report")
    return targets


def _check_targets(targets: dict[str, Path], case: Case, options: dict[str, Any]) -> None:
    """Refuse before the work what could not be written after it."""
    seen: dict[Path, str] = {}
    for name, path in targets.items():
        first = seen.setdefault(path.resolve(), name)
        if first != name:
            raise InputError(f"{path}: {first} and {name} are one file; name two")
        for source in case.files.values():
            if path.exists() and source.exists() and path.samefile(source):
                raise InputError(f"{path}: is an input; choose another output")
        if not options["dry_run"]:
            files.check_output(path, overwrite=options["overwrite"])


def _pictures(
    job: inference.Job,
    result: inference.Segmentation,
    settings: inference.InferSettings,
    options: dict[str, Any],
    card: ModelCard,
) -> list[Path]:
    """Write report and PNG where they are asked for."""
    common: dict[str, Any] = {
        "images": job.images,
        "seg": result.labels,
        "affine": result.reference.affine,
        "scheme": settings.labels,
    }
    written = []
    if options["report"]:
        from ..report.page import write_report

        write_report(
            options["report"],
            **common,
            probabilities=result.probabilities,
            facts=record(job, settings, card, tta=options["tta"])
            | {"plan": result.plan.describe()},
            card=card,
            warnings=job.notes,
            viewer=options["viewer"],
        )
        written.append(options["report"])
    if options["png"]:
        from ..report.page import write_png

        write_png(options["png"], **common)
        written.append(options["png"])
    return written


def _show_plan(
    job: inference.Job, plan: inference.InferencePlan, predictor: Predictor, as_json: bool
) -> None:
    """Print the plan, and the time that one measured tile promises."""
    tile = np.zeros((plan.batch, len(job.prepared.images), *plan.tile), np.float32)
    began = time.perf_counter()
    predictor(tile)
    seconds = (time.perf_counter() - began) * plan.tiles / plan.batch
    grid = "x".join(map(str, job.prepared.images.shape[1:]))
    facts = {
        "case": job.case.name,
        "files": {name: str(path) for name, path in job.case.files.items()},
        "input": str(job.reference),
        "network_grid": f"{grid} voxels of {'x'.join(f'{s:g}' for s in job.prepared.spacing)} mm",
        "warnings": job.notes,
        **plan.to_dict(),
        "seconds": round(seconds, 1),
    }
    lines = [f"{name}: {facts[name]}" for name in ("case", "input", "network_grid")]
    lines += [plan.describe(), f"about {format_seconds(seconds)}; nothing was written"]
    console.emit(facts, as_json=as_json, text="\n".join(lines))

# SPDX-License-Identifier: Apache-2.0
"""rs-sr infer."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fieldfare.common import batch, console
from fieldfare.common.commands import budget
from fieldfare.common.commands.infer import (
    check_targets,
    infer_many,
    input_key,
    seconds_of,
    show_plan,
)
from fieldfare.common.commands.trust import warning
from fieldfare.common.console.shared import TrustOptions
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ...rasters.extent import held_by
from ...rasters.opening import environment, files_of
from ...rasters.windows import Box, window_of
from ...rasters.writing import PICTURES, RASTERS, check_suffix
from ..inference import restore
from ..inference import run as inference
from ..inference.familiarity import Assessment
from ..inference.job import InferSettings, Job, identity, prepare
from ..networks.model import TASK
from ..options import InferOptions
from .budget import needs


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Enlarge one raster, or many through `batch`."""
    set_threads()
    with environment(allow_remote=options.allow_remote):
        window = window_of(inputs, options.window, options.bbox)
        one = len(inputs) == 1 and not options.output.is_dir()
        if one:
            _check(inputs[0], options)
        options, planned = budget.within(
            TASK,
            options,
            inputs,
            lambda chosen: needs(_settings(chosen, window)),
            workers=None if one else options.workers,
        )
        settings = _settings(options, window)
        if one:
            _infer_one(inputs[0], settings, options, planned)
        else:
            _infer_many(inputs, settings, options, planned)
        budget.tell(planned, options)


def _settings(options: InferOptions, window: Box | None) -> InferSettings:
    return InferSettings(
        model=options.model,
        steps=options.steps,
        sampler=options.sampler,
        seed=options.seed,
        bands=options.bands,
        value_range=options.value_range,
        window=window,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        consistent=options.consistent,
        uncertainty=options.uncertainty or 0,
        device=options.device,
        precision=options.precision,
        cog=options.layout == "cog",
        allow_remote=options.allow_remote,
    )


def _check(source: Path, options: InferOptions) -> None:
    """Refuse outputs that cannot be."""
    check_targets(files_of(source), _targets(options), options)
    check_suffix("--output", options.output, RASTERS)
    check_suffix("--preview", options.preview, PICTURES)


def _targets(options: InferOptions) -> dict[str, Path | None]:
    deviation = _deviation_path(options.output) if options.uncertainty else None
    return {
        "--output": options.output,
        "--uncertainty": deviation,
        "--preview": options.preview,
    }


def _infer_one(
    source: Path, settings: InferSettings, options: InferOptions, planned: budget.Plan | None
) -> None:
    quiet, output, picture = options.quiet, options.output, options.preview
    deviation = _targets(options)["--uncertainty"]
    made = [str(path) for path in _targets(options).values() if path]
    restorers = settings.restorers()
    if options.dry_run:
        _show_plan(source, made, settings, restorers, options)
        return
    bars: list[Progress] = []

    def started(job: Job) -> None:
        outside = ", those outside are carried over" if job.beyond else ""
        console.say(f"{source}: values {job.values} are seen as 0 to 1{outside}", quiet=quiet)
        if job.assessment.processed and settings.consistent is None:
            console.say(
                f"{source}: looks sharpened, noisy or compressed; the result is not held to that "
                "(--consistent would)",
                quiet=quiet,
            )
        if job.softening:
            console.say(
                f"{source}: looks sharpened by about {job.softening:.0f} dB near the Nyquist "
                "frequency; that is undone first (--consistent leaves it)",
                quiet=quiet,
            )
        if alpha := job.scene.alpha:
            hint = "name it in --bands if it is not transparency"
            console.say(f"{source}: band {alpha}, marked as alpha, is kept; {hint}", quiet=quiet)
        _warn(job, str(source), options)
        bars.append(Progress("restore", len(job.tiles), quiet=quiet))

    result = inference.infer(
        source,
        output,
        settings,
        restorers,
        deviation=deviation,
        preview=picture,
        resume=options.resume,
        started=started,
        progress=lambda done, total: bars[0].update(done),
    )
    bars[0].__exit__(None, None, None)
    result |= {"deviation": deviation, "preview": picture, **budget.outcome(planned)}
    console.emit(result, as_json=options.as_json, text="\n".join(made))


def _deviation_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}_std{output.suffix}")


def _show_plan(
    source: Path,
    made: Sequence[str],
    settings: InferSettings,
    restorers: Sequence[restore.Restorer],
    options: InferOptions,
) -> None:
    """Print tiles, cost and memory, and the time that one measured tile promises."""
    first = restorers[0]
    job = prepare(source, settings, first)
    with job.scene as scene:
        side = settings.tile + 2 * restore.MARGIN
        tile = np.zeros((1, len(scene.bands), side, side), np.float32)
        held = held_by(scene, job.tiles, margin=restore.MARGIN)
        runs = held.tiles * len(restorers)
        plan = {
            "input": f"{scene.width} x {scene.height}, {len(scene.bands)} bands of {scene.dtype}",
            "output": f"{scene.width * first.scale} x {scene.height * first.scale}",
            "files": ", ".join(made),
            "range": str(job.values),
            **job.assessment.to_json(),
            "tiles": len(job.tiles),
            "tiles_with_data": held.tiles,
            "network_calls": runs * getattr(first, "steps", 0),
            "memory_mb": round(job.memory / 2**20),
            "disk_mb": -(-round(2 * held.share * job.row_bytes) // 2**20),
        }
    origins = np.zeros((1, 2), np.int64)
    seconds = seconds_of(lambda: restore.restore_bands(first, tile, origins), count=runs)
    show_plan(plan, options, seconds=seconds)


def _infer_many(
    inputs: Sequence[Path],
    settings: InferSettings,
    options: InferOptions,
    planned: budget.Plan | None,
) -> None:
    if options.preview:
        raise InputError("--preview takes one input and an output file")
    settings.restorers()  # so that a wrong model is refused once, before any worker starts

    def outputs_of(path: Path) -> tuple[Path, ...]:
        target = options.output / f"{path.stem}_x4.tif"
        return (target, _deviation_path(target)) if settings.uncertainty else (target,)

    infer_many(
        inputs,
        functools.partial(
            make_worker,
            settings,
            {input_key(path): path for path in inputs},
            TrustOptions(strict=options.strict),
        ),
        outputs_of,
        options,
        files_of=files_of,
        settings=identity(settings)
        | ({"strict": True} if options.strict else {})
        | budget.record(planned),
        finish=lambda: budget.outcome(planned),
    )


def doubts(assessment: Assessment, name: str, options: TrustOptions) -> list[str]:
    """The lines to say of a raster that is unlike what the model knows.

    Raises:
        InputError: with `--strict`, instead of lines.
    """
    said = warning(assessment.judgement, name, options)
    lines = [said] if said else []
    if assessment.looks:
        lines.append(f"{name}: looks {assessment.looks}")
        if options.strict:
            raise InputError(f"{lines[-1]}; nothing was written, as --strict was given")
    return lines


def make_worker(
    settings: InferSettings, sources: Mapping[str, Path], trust: TrustOptions
) -> batch.Process:
    """Load the model once; the returned function enlarges one item.

    Args:
        sources: the raster of each item, which is not always a file: it may be in an archive.
        trust: what is done about a raster that is unlike what the model knows.
    """
    restorers = settings.restorers()

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        result = inference.infer(
            sources[item.key],
            temporaries[0],
            settings,
            restorers,
            deviation=temporaries[1] if len(temporaries) > 1 else None,
            store=item.outputs[0],
            started=lambda job: _warn(job, item.key, trust),
        )
        judged = result["trust"] or {}
        kept = {f"trust_{name}": judged[name] for name in ("expected", "distance") if judged}
        kept["softening"] = result["softening"]
        return {"tiles": float(result["tiles"]), **kept, **(result["signs"] or {})}

    return process


def _warn(job: Job, name: str, trust: TrustOptions) -> None:
    """Say what is unlike what the model knows; raises InputError with `--strict`."""
    for line in doubts(job.assessment, name, trust):
        console.say(f"warning: {line}")

# SPDX-License-Identifier: Apache-2.0
"""rs-dehaze infer."""

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
from ..inference import run as inference
from ..inference.dehazers import Dehazer
from ..inference.run import InferSettings, Job, identity, prepare
from ..networks.model import TASK
from ..options import InferOptions
from .budget import needs


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Dehaze one raster, or many through `batch`."""
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
        bands=options.bands,
        value_range=options.value_range,
        window=window,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        device=options.device,
        precision=options.precision,
        cog=options.layout == "cog",
        allow_remote=options.allow_remote,
    )


def _check(source: Path, options: InferOptions) -> None:
    """Refuse outputs that cannot be."""
    targets = {"--output": options.output, "--preview": options.preview}
    check_targets(files_of(source), targets, options)
    check_suffix("--output", options.output, RASTERS)
    check_suffix("--preview", options.preview, PICTURES)


def _infer_one(
    source: Path, settings: InferSettings, options: InferOptions, planned: budget.Plan | None
) -> None:
    quiet, output, picture = options.quiet, options.output, options.preview
    made = [str(path) for path in (output, picture) if path]
    dehazer = settings.dehazer()
    if options.dry_run:
        _show_plan(source, made, settings, dehazer, options)
        return
    bars: list[Progress] = []

    def started(job: Job) -> None:
        outside = ", those outside are carried over" if job.beyond else ""
        console.say(f"{source}: values {job.values} are seen as 0 to 1{outside}", quiet=quiet)
        if alpha := job.scene.alpha:
            hint = "name it in --bands if it is not transparency"
            console.say(f"{source}: band {alpha}, marked as alpha, is kept; {hint}", quiet=quiet)
        _warn(job, str(source), options)
        bars.append(Progress("dehaze", len(job.tiles), quiet=quiet))

    result = inference.infer(
        source,
        output,
        settings,
        dehazer,
        preview=picture,
        resume=options.resume,
        started=started,
        progress=lambda done, total: bars[0].update(done),
    )
    bars[0].__exit__(None, None, None)
    result |= {"preview": picture, **budget.outcome(planned)}
    console.emit(result, as_json=options.as_json, text="\n".join(made))


def _show_plan(
    source: Path,
    made: Sequence[str],
    settings: InferSettings,
    dehazer: Dehazer,
    options: InferOptions,
) -> None:
    """Print tiles, cost and memory, and the time that one measured tile promises."""
    job = prepare(source, settings, dehazer)
    with job.scene as scene:
        side = settings.tile + 2 * job.dehazer.margin
        tile = np.zeros((1, len(scene.bands), side, side), np.float32)
        held = held_by(scene, job.tiles, margin=job.dehazer.margin)
        plan = {
            "input": f"{scene.width} x {scene.height}, {len(scene.bands)} bands of {scene.dtype}",
            "output": f"{scene.width} x {scene.height}",
            "files": ", ".join(made),
            "range": str(job.values),
            "trust": job.judgement.to_json() if job.judgement else None,
            "tiles": len(job.tiles),
            "tiles_with_data": held.tiles,
            "memory_mb": round(job.memory / 2**20),
            "disk_mb": -(-round(2 * held.share * job.row_bytes) // 2**20),
        }
    show_plan(plan, options, seconds=seconds_of(lambda: job.dehazer(tile), count=held.tiles))


def _infer_many(
    inputs: Sequence[Path],
    settings: InferSettings,
    options: InferOptions,
    planned: budget.Plan | None,
) -> None:
    if options.preview:
        raise InputError("--preview takes one input and an output file")
    settings.dehazer()  # so that a wrong model is refused once, before any worker starts

    def outputs_of(path: Path) -> tuple[Path, ...]:
        return (options.output / f"{path.stem}_clear.tif",)

    sources = {input_key(path): path for path in inputs}
    infer_many(
        inputs,
        functools.partial(make_worker, settings, sources, TrustOptions(strict=options.strict)),
        outputs_of,
        options,
        files_of=files_of,
        settings=identity(settings)
        | ({"strict": True} if options.strict else {})
        | budget.record(planned),
        finish=lambda: budget.outcome(planned),
    )


def make_worker(
    settings: InferSettings, sources: Mapping[str, Path], trust: TrustOptions
) -> batch.Process:
    """Load the model once; the returned function dehazes one item.

    Args:
        sources: the raster of each item, which is not always a file: it may be in an archive.
        trust: what is done about a raster that is unlike what the model knows.
    """
    dehazer = settings.dehazer()

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        source, target = sources[item.key], temporaries[0]
        result = inference.infer(
            source,
            target,
            settings,
            dehazer,
            store=item.outputs[0],
            started=lambda job: _warn(job, item.key, trust),
        )
        judged = result["trust"] or {}
        kept = {f"trust_{name}": judged[name] for name in ("expected", "distance") if judged}
        return {"tiles": float(result["tiles"]), **kept}

    return process


def _warn(job: Job, name: str, trust: TrustOptions) -> None:
    """Say that a raster is unlike what the model knows; raises InputError with `--strict`."""
    if said := warning(job.judgement, name, trust):
        console.say(f"warning: {said}")

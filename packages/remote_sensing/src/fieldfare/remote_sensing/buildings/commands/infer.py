# SPDX-License-Identifier: Apache-2.0
"""rs-buildings infer."""

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
from fieldfare.common.commands.trust import tell, warning
from fieldfare.common.console.shared import GuardOptions
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.knowledge import Judgement

from ...rasters.extent import held_by
from ...rasters.opening import environment, files_of
from ...rasters.windows import Box, window_of
from ...rasters.writing import PICTURES, RASTERS, check_suffix
from ...scenes.ground import COARSE
from ...vectors.writing import SUFFIXES
from ..inference import run as inference
from ..inference.doubts import Impression
from ..inference.footprints import FootprintSettings
from ..inference.predict import Predictor
from ..networks.models import TASK
from ..options import InferOptions, SceneOptions
from .budget import needs


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Outline one scene, or many through `batch`."""
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
            lambda chosen: needs(_settings(chosen, window), guard=chosen.guard),
            workers=None if one else options.workers,
        )
        settings = _settings(options, window)
        if one:
            _infer_one(inputs[0], settings, options, planned)
        else:
            _infer_many(inputs, settings, options, planned)
        budget.tell(planned, options)


def _settings(options: InferOptions, window: Box | None) -> inference.InferSettings:
    return settings_of(
        options,
        model=options.model,
        depth=options.depth,
        footprints=FootprintSettings(
            threshold=options.threshold,
            min_area=options.min_area,
            max_hole=options.max_hole,
            regularise=not options.raw,
            split=not options.no_split,
        ),
        window=window,
        batch=options.batch,
    )


def settings_of(
    options: SceneOptions,
    *,
    model: str,
    depth: int | None,
    footprints: FootprintSettings,
    window: Box | None,
    batch: int | None = None,
) -> inference.InferSettings:
    """The settings that the options which `infer` and `eval` share ask for, and more of them."""
    return inference.InferSettings(
        model=model,
        depth=depth,
        footprints=footprints,
        bands=options.bands,
        value_range=options.value_range,
        window=window,
        gsd=options.gsd,
        pixel_size=options.pixel_size,
        tile=options.tile,
        overlap=options.overlap,
        batch=batch,
        device=options.device,
        precision=options.precision,
        allow_remote=getattr(options, "allow_remote", False),
    )


def _targets(options: InferOptions) -> dict[str, Path | None]:
    return {
        "--output": options.output,
        "--mask": options.mask,
        "--prob": options.prob,
        "--preview": options.preview,
    }


def _check(source: Path, options: InferOptions) -> None:
    """Refuse outputs that cannot be."""
    targets = _targets(options)
    check_suffix("--output", options.output, SUFFIXES)
    check_targets(files_of(source), targets, options)
    for name in ("--mask", "--prob"):
        check_suffix(name, targets[name], RASTERS)
    check_suffix("--preview", options.preview, PICTURES)


def _infer_one(
    source: Path,
    settings: inference.InferSettings,
    options: InferOptions,
    planned: budget.Plan | None,
) -> None:
    quiet, output, picture = options.quiet, options.output, options.preview
    made = [str(path) for path in _targets(options).values() if path]
    predictor = settings.predictor()
    if options.dry_run:
        _show_plan(source, made, settings, predictor, options)
        return
    bars: list[Progress] = []

    def started(job: inference.Job) -> None:
        for line in notes(source, job, settings, predictor):
            console.say(line, quiet=quiet)
        bars.append(Progress("predict", len(job.tiles), quiet=quiet))

    def outlined(done: int, total: int) -> None:
        if len(bars) == 1:
            bars[0].__exit__(None, None, None)
            bars.append(Progress("outline", total, unit="building", quiet=quiet))
        bars[1].update(done)

    def looked(impression: Impression) -> None:
        tell(impression.warnings(), str(source), options)
        if impression.verdict and not impression.verdict.alarm:
            console.say(f"{source}: {impression.verdict.sentence()}", quiet=quiet)

    def judged(judgement: Judgement | None) -> None:
        if line := warning(judgement, str(source), options):
            console.say(f"warning: {line}")
        elif judgement:
            console.say(f"{source}: {judgement.sentence()}", quiet=quiet)

    result = inference.infer(
        source,
        inference.Targets(output, options.mask, options.prob, picture),
        settings,
        predictor,
        resume=options.resume,
        started=started,
        progress=lambda done, total: bars[0].update(done),
        outlined=outlined,
        guard=options.guard,
        looked=looked,
        judged=judged,
    )
    bars[-1].__exit__(None, None, None)
    result |= {"mask": options.mask, "probability": options.prob, "preview": picture}
    result |= budget.outcome(planned)
    console.say(f"{result['buildings']} buildings, {result['area_m2']:,.0f} m2", quiet=quiet)
    console.emit(result, as_json=options.as_json, text="\n".join(made))


def notes(
    source: Path, job: inference.Job, settings: inference.InferSettings, predictor: Predictor
) -> list[str]:
    """What a user should know about how this scene is taken."""
    model_gsd, lines = predictor.config.gsd, []
    made_for = max(model_gsd, job.expert or 0)
    if job.expert is not None:
        lines.append(f"{source}: gets the expert for {job.expert:g} m per pixel")
    if job.scene.dtype != np.uint8 or settings.value_range:
        lines.append(f"{source}: values {job.values} are seen as 0 to 1")
    if job.gsd is None:
        lines.append(
            f"{source}: has no CRS; footprints are in pixel coordinates (x = column, y = row), and "
            f"one pixel is taken as {model_gsd:g} m (--gsd says otherwise)"
        )
    elif max(job.gsd) > COARSE * made_for:
        lines.append(
            f"{source}: {max(job.gsd):.3g} m per pixel is {max(job.gsd) / made_for:.1f} times as "
            f"coarse as the model's {made_for:g} m; expect to miss most small houses"
        )
    elif job.resampled:
        whose = "" if settings.pixel_size else "the model's "
        size = " x ".join(f"{side:.3g}" for side in dict.fromkeys(round(s, 4) for s in job.gsd))
        lines.append(
            f"{source}: {size} m per pixel, resampled to {whose}{model_gsd:g} m "
            f"({job.scene.width} x {job.scene.height} pixels)"
        )
    return lines


def _show_plan(
    source: Path,
    made: Sequence[str],
    settings: inference.InferSettings,
    predictor: Predictor,
    options: InferOptions,
) -> None:
    """Print tiles, memory, and the time that one measured tile promises."""
    job = inference.prepare(source, settings, predictor)
    with job.scene as scene:
        side = settings.tile
        tile = np.zeros((1, predictor.config.in_channels, side, side), np.float32)
        plan = {
            "scene": f"{scene.width} x {scene.height} pixels of {predictor.config.gsd:g} m",
            "files": ", ".join(made),
            "resampled": job.resampled,
            "expert": job.expert,
            "range": str(job.values),
            "tiles": len(job.tiles),
            "memory_mb": round(job.memory / 2**20),
        }
        held = held_by(scene, job.tiles, shift=settings.shift)
        plan |= {"tiles_with_data": held.tiles}
        plan |= {"disk_mb": -(-round(2 * held.share * job.row_bytes) // 2**20)}
    start = np.zeros((1, 2), np.int64)
    seconds = seconds_of(lambda: predictor(tile, start), count=held.tiles)
    lines = notes(source, job, settings, predictor)
    lines += [f"{name}: {value}" for name, value in plan.items()]
    show_plan(plan, options, seconds=seconds, lines=lines)


def _infer_many(
    inputs: Sequence[Path],
    settings: inference.InferSettings,
    options: InferOptions,
    planned: budget.Plan | None,
) -> None:
    if options.preview or options.mask or options.prob:
        raise InputError("--preview, --mask and --prob take one scene and an output file")
    settings.predictor()  # so that a wrong model is refused once, before any worker starts
    infer_many(
        inputs,
        functools.partial(
            make_worker, settings, {input_key(path): path for path in inputs}, options
        ),
        lambda path: (options.output / f"{path.stem}.{options.suffix}",),
        options,
        files_of=files_of,
        settings=inference.identity(settings)
        | {"footprints": str(settings.footprints), **budget.record(planned)},
        noun="scenes",
        finish=lambda: budget.outcome(planned),
    )


def make_worker(
    settings: inference.InferSettings, sources: Mapping[str, Path], options: GuardOptions
) -> batch.Process:
    """Load the model once; the returned function outlines one item.

    Args:
        sources: the scene of each item, which is not always a file: it may be in an archive.
    """
    predictor = settings.predictor()

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        targets = inference.Targets(temporaries[0], store=item.outputs[0])

        def judged(judgement: Judgement | None) -> None:
            if line := warning(judgement, item.key, options):
                console.say(f"warning: {line}")

        result = inference.infer(
            sources[item.key],
            targets,
            settings,
            predictor,
            guard=options.guard,
            looked=lambda impression: tell(impression.warnings(), item.key, options),
            judged=judged,
        )
        numbers = {"buildings": float(result["buildings"]), "tiles": float(result["tiles"])}
        if result["expert"]:
            numbers |= {"expert_m": result["expert"]}
        if result["trust"]:
            numbers |= {"expected_iou": result["trust"]["expected"]}
            numbers |= {"unlike": float(result["trust"]["alarm"])}
        if result["doubts"]:
            numbers |= {"doubts": float(len(result["doubts"]))}
        if result["guard"]:
            numbers |= {"guarded": float(result["guard"]["alarm"])}
        return numbers

    return process

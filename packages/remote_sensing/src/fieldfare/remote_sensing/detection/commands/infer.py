# SPDX-License-Identifier: Apache-2.0
"""rs-detect infer."""

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
from fieldfare.common.console.shared import TrustOptions
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.knowledge import Judgement

from ...rasters.opening import environment, files_of
from ...rasters.windows import Box, window_of
from ...rasters.writing import PICTURES, check_suffix
from ...scenes.ground import COARSE
from ..inference import run as inference
from ..inference.predict import Predictor
from ..inference.writing import check_output
from ..networks.models import TASK
from ..options import InferOptions, SceneOptions
from .budget import needs


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Search one scene, or many through `batch`."""
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


def _settings(options: InferOptions, window: Box | None) -> inference.InferSettings:
    return settings_of(
        options,
        options.model,
        window=window,
        points=options.points,
        batch=options.batch,
        allow_remote=options.allow_remote,
    )


def settings_of(
    options: SceneOptions,
    model: str,
    *,
    window: Box | None = None,
    points: bool = False,
    batch: int | None = None,
    allow_remote: bool = False,
) -> inference.InferSettings:
    """The settings that the options which `infer` and `eval` share ask for, and more of them."""
    return inference.InferSettings(
        model=model,
        threshold=options.threshold,
        nms=options.nms,
        bands=options.bands,
        value_range=options.value_range,
        window=window,
        gsd=options.gsd,
        pixel_size=options.pixel_size,
        tile=options.tile,
        overlap=options.overlap,
        points=points,
        batch=batch,
        device=options.device,
        precision=options.precision,
        allow_remote=allow_remote,
    )


def _check(source: Path, options: InferOptions) -> None:
    """Refuse outputs that cannot be."""
    check_output(options.output)
    targets = {"--output": options.output, "--preview": options.preview}
    check_targets(files_of(source), targets, options)
    check_suffix("--preview", options.preview, PICTURES)


def _infer_one(
    source: Path,
    settings: inference.InferSettings,
    options: InferOptions,
    planned: budget.Plan | None,
) -> None:
    quiet, output, picture = options.quiet, options.output, options.preview
    made = [str(path) for path in (output, picture) if path]
    predictor = settings.predictor()
    if options.dry_run:
        _show_plan(source, made, settings, predictor, options)
        return
    bars: list[Progress] = []

    def started(job: inference.Job) -> None:
        for line in notes(source, job, settings, predictor):
            console.say(line, quiet=quiet)
        bars.append(Progress("detect", len(job.tiles), quiet=quiet))

    def looked(doubts: list[str]) -> None:
        tell(doubts, str(source), options)

    def judged(judgement: Judgement | None) -> None:
        if line := warning(judgement, str(source), options):
            console.say(f"warning: {line}")
        elif judgement:
            console.say(f"{source}: {judgement.sentence()}", quiet=quiet)

    result = inference.infer(
        source,
        inference.Targets(output, picture),
        settings,
        predictor,
        resume=options.resume,
        started=started,
        progress=lambda done, total: bars[0].update(done),
        looked=looked,
        judged=judged,
    )
    bars[0].__exit__(None, None, None)
    counts = ", ".join(f"{count} {name}" for name, count in result["classes"].items() if count)
    console.say(counts or "nothing found", quiet=quiet)
    result |= {"preview": picture, **budget.outcome(planned)}
    console.emit(result, as_json=options.as_json, text="\n".join(made))


def notes(
    source: Path, job: inference.Job, settings: inference.InferSettings, predictor: Predictor
) -> list[str]:
    """What a user should know about how this scene is taken."""
    ready, model_gsd, lines = job.ready, predictor.config.gsd, []
    if ready.scene.dtype != np.uint8 or settings.value_range:
        lines.append(f"{source}: values {ready.values} are seen as 0 to 1")
    if ready.gsd is None:
        lines.append(
            f"{source}: has no CRS; boxes are in pixel coordinates (x = column, y = row), and one "
            f"pixel is taken as {model_gsd:g} m (--gsd says otherwise)"
        )
    elif max(ready.gsd) > 2 * COARSE * model_gsd:
        lines.append(
            f"{source}: {max(ready.gsd):.3g} m per pixel is {max(ready.gsd) / model_gsd:.1f} times "
            f"as coarse as the model's {model_gsd:g} m; expect to miss small objects"
        )
    elif ready.resampled:
        sides = dict.fromkeys(round(side, 4) for side in ready.gsd)
        size = " x ".join(f"{side:.3g}" for side in sides)
        lines.append(
            f"{source}: {size} m per pixel, resampled to the model's {model_gsd:g} m "
            f"({ready.scene.width} x {ready.scene.height} pixels)"
        )
    return lines


def _show_plan(
    source: Path,
    made: Sequence[str],
    settings: inference.InferSettings,
    predictor: Predictor,
    options: InferOptions,
) -> None:
    """Print tiles, and the time that one measured tile promises."""
    job = inference.prepare(source, settings, predictor)
    with job.scene as scene:
        side = settings.tile
        tile = np.zeros((1, predictor.config.in_channels, side, side), np.float32)
        plan = {
            "scene": f"{scene.width} x {scene.height} pixels of {predictor.config.gsd:g} m",
            "files": ", ".join(made),
            "resampled": job.ready.resampled,
            "range": str(job.ready.values),
            "tiles": len(job.tiles),
        }
        lines = notes(source, job, settings, predictor)
    seconds = seconds_of(lambda: predictor(tile, 0.5), count=len(job.tiles))
    lines += [f"{name}: {value}" for name, value in plan.items()]
    show_plan(plan, options, seconds=seconds, lines=lines)


def _infer_many(
    inputs: Sequence[Path],
    settings: inference.InferSettings,
    options: InferOptions,
    planned: budget.Plan | None,
) -> None:
    if options.preview:
        raise InputError("--preview takes one scene and an output file")
    settings.predictor()  # so that a wrong model is refused once, before any worker starts
    sources = {input_key(path): path for path in inputs}
    infer_many(
        inputs,
        functools.partial(make_worker, settings, sources, options),
        lambda path: (options.output / f"{path.stem}.{options.suffix}",),
        options,
        files_of=files_of,
        settings=inference.identity(settings)
        | {"points": settings.points, **budget.record(planned)},
        noun="scenes",
        finish=lambda: budget.outcome(planned),
    )


def make_worker(
    settings: inference.InferSettings, sources: Mapping[str, Path], options: TrustOptions
) -> batch.Process:
    """Load the model once; the returned function searches one item.

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
            looked=lambda doubts: tell(doubts, item.key, options),
            judged=judged,
        )
        numbers = {"objects": float(result["objects"]), "tiles": float(result["tiles"])}
        if result["trust"]:
            numbers |= {"expected_f1": result["trust"]["expected"]}
            numbers |= {"unlike": float(result["trust"]["alarm"])}
        if result["doubts"]:
            numbers |= {"doubts": float(len(result["doubts"]))}
        return numbers

    return process

# SPDX-License-Identifier: Apache-2.0
"""rs-buildings infer."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import batch, console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ... import commands as shared
from ...rasters.many import infer_many
from ..inference import run as inference
from ..inference.footprints import FootprintSettings
from ..inference.predict import Predictor
from ..inference.preview import draw_outlines
from ..inference.vectors import SUFFIXES


def infer(inputs: Sequence[Path], output: Path, options: dict[str, Any]) -> None:
    """Outline one scene, or many through `batch`."""
    set_threads()
    settings = settings_of(
        options,
        model=options["model"],
        depth=options["depth"],
        footprints=FootprintSettings(
            threshold=options["threshold"],
            min_area=options["min_area"],
            max_hole=options["max_hole"],
            regularise=not options["raw"],
            split=not options["no_split"],
        ),
        window=shared.window_of(inputs, options),
        batch=options["batch"],
    )
    if len(inputs) == 1 and not output.is_dir():
        _infer_one(inputs[0], output, settings, options)
    else:
        _infer_many(inputs, output, settings, options)


def settings_of(options: Mapping[str, Any], **more: Any) -> inference.InferSettings:
    """The settings that the options which `infer` and `eval` share ask for, and more of them."""
    names = ("bands", "value_range", "gsd", "tile", "overlap", "device", "precision")
    return inference.InferSettings(**{name: options[name] for name in names}, **more)


def _infer_one(
    source: Path, output: Path, settings: inference.InferSettings, options: dict[str, Any]
) -> None:
    quiet, picture = options["quiet"], options["preview"]
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(f"{output}: name it {', '.join('*' + suffix for suffix in SUFFIXES)}")
    shared.check_targets(source, (output, options["mask"], options["prob"], picture), options)
    predictor = settings.predictor()
    if options["dry_run"]:
        _show_plan(source, settings, predictor, options["as_json"])
        return
    bars: list[Progress] = []

    def started(job: inference.Job) -> None:
        for line in notes(source, job, settings, predictor):
            console.say(line, quiet=quiet)
        bars.append(Progress("predict", len(job.tiles), quiet=quiet))

    def tick(done: int, total: int) -> None:
        bars[0].update(done)

    def outlined(done: int, total: int) -> None:
        if len(bars) == 1:
            bars[0].__exit__(None, None, None)
            bars.append(Progress("outline", total, unit="building", quiet=quiet))
        bars[1].update(done)

    result = inference.infer(
        source,
        inference.Targets(output, options["mask"], options["prob"]),
        settings,
        predictor,
        resume=options["resume"],
        started=started,
        progress=tick,
        outlined=outlined,
    )
    bars[-1].__exit__(None, None, None)
    if picture:
        draw_outlines(source, output, picture, settings.value_range)
    result |= {"mask": options["mask"], "probability": options["prob"], "preview": picture}
    console.say(f"{result['buildings']} buildings, {result['area_m2']:,.0f} m2", quiet=quiet)
    made = [str(path) for path in (output, options["mask"], options["prob"], picture) if path]
    console.emit(result, as_json=options["as_json"], text="\n".join(made))


def notes(
    source: Path, job: inference.Job, settings: inference.InferSettings, predictor: Predictor
) -> list[str]:
    """What a user should know about how this scene is taken."""
    model_gsd, lines = predictor.config.gsd, []
    if job.scene.dtype != np.uint8 or settings.value_range:
        lines.append(f"{source}: values {job.values} are seen as 0 to 1")
    if job.gsd is None:
        lines.append(
            f"{source}: has no CRS; footprints are in pixel coordinates (x = column, y = row), and "
            f"one pixel is taken as {model_gsd:g} m (--gsd says otherwise)"
        )
    elif job.resampled:
        size = " x ".join(f"{side:.3g}" for side in dict.fromkeys(round(s, 4) for s in job.gsd))
        lines.append(
            f"{source}: {size} m per pixel, resampled to the model's {model_gsd:g} m "
            f"({job.scene.width} x {job.scene.height} pixels)"
        )
    return lines


def _show_plan(
    source: Path, settings: inference.InferSettings, predictor: Predictor, as_json: bool
) -> None:
    """Print tiles, memory, and the time that one measured tile promises."""
    job = inference.prepare(source, settings, predictor)
    with job.scene as scene:
        tile = np.zeros((1, predictor.config.in_channels, settings.tile, settings.tile), np.float32)
        plan = {
            "scene": f"{scene.width} x {scene.height} pixels of {predictor.config.gsd:g} m",
            "resampled": job.resampled,
            "range": str(job.values),
            "tiles": len(job.tiles),
            "memory_mb": round(job.memory / 2**20),
        }
    shared.show_plan(
        plan,
        lambda: predictor(tile, np.zeros((1, 2), np.int64)),
        len(job.tiles),
        as_json=as_json,
        notes=notes(source, job, settings, predictor),
    )


def _infer_many(
    inputs: Sequence[Path],
    folder: Path,
    settings: inference.InferSettings,
    options: dict[str, Any],
) -> None:
    if options["preview"] or options["dry_run"] or options["mask"] or options["prob"]:
        raise InputError("--preview, --mask, --prob and --dry-run take one scene and a file")
    settings.predictor()  # so that a wrong model is refused once, before any worker starts
    kept = inference.identity(settings) | {"footprints": str(settings.footprints)}
    infer_many(
        inputs,
        folder,
        functools.partial(make_worker, settings),
        lambda path: (folder / f"{path.stem}.{options['suffix']}",),
        kept,
        options,
    )


def make_worker(settings: inference.InferSettings) -> batch.Process:
    """Load the model once; the returned function outlines one item."""
    predictor = settings.predictor()

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        targets = inference.Targets(temporaries[0], store=item.outputs[0])
        result = inference.infer(item.inputs[0], targets, settings, predictor)
        return {"buildings": float(result["buildings"]), "tiles": float(result["tiles"])}

    return process

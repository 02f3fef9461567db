# SPDX-License-Identifier: Apache-2.0
"""What the commands of rs-sr do with their options; imported when one runs."""

import dataclasses
import datetime
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import batch, console, efficiency, files
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard, available, read_card

from .. import commands as shared
from ..rasters.many import infer_many
from . import training
from .inference import preview, restore
from .inference import run as inference
from .networks import convert as conversion
from .networks import export as exporting
from .networks.ediffsr import EDiffSRConfig
from .networks.model import TASK, ModelConfig, load_model

SMALL = ModelConfig(
    network=EDiffSRConfig(width=32, encoder_blocks=(1, 1), middle_blocks=10, decoder_blocks=(1, 1)),
    prediction="velocity",
    max_sigma=16 / 255,
    default_steps=2,
    last_time=80.0,
)


def infer(inputs: Sequence[Path], output: Path, options: dict[str, Any]) -> None:
    """Enlarge one raster, or many through `batch`."""
    set_threads()
    settings = _infer_settings(inputs, options)
    if len(inputs) == 1 and not output.is_dir():
        _infer_one(inputs[0], output, settings, options)
    else:
        _infer_many(inputs, output, settings, options)


def _infer_settings(inputs: Sequence[Path], options: dict[str, Any]) -> inference.InferSettings:
    return inference.InferSettings(
        model=options["model"],
        steps=options["steps"],
        sampler=options["sampler"],
        seed=options["seed"],
        bands=options["bands"],
        value_range=options["value_range"],
        window=shared.window_of(inputs, options),
        tile=options["tile"],
        overlap=options["overlap"],
        batch=options["batch"],
        uncertainty=options["uncertainty"] or 0,
        device=options["device"],
        precision=options["precision"],
        cog=options["layout"] == "cog",
    )


def _infer_one(
    source: Path, output: Path, settings: inference.InferSettings, options: dict[str, Any]
) -> None:
    quiet, picture = options["quiet"], options["preview"]
    deviation = _deviation_path(output) if settings.uncertainty else None
    shared.check_targets(source, (output, deviation, picture), options)
    restorers = settings.restorers()
    if options["dry_run"]:
        _show_plan(source, settings, restorers, options["as_json"])
        return
    bar: Progress | None = None

    def started(job: inference.Job) -> None:
        nonlocal bar
        console.say(f"{source}: values {job.values} are seen as 0 to 1", quiet=quiet)
        if alpha := job.scene.alpha:
            hint = "name it in --bands if it is not transparency"
            console.say(f"{source}: band {alpha}, marked as alpha, is kept; {hint}", quiet=quiet)
        bar = Progress("restore", len(job.tiles), quiet=quiet)

    def tick(done: int, total: int) -> None:
        if bar:
            bar.update(done)

    result = inference.infer(
        source,
        output,
        settings,
        restorers,
        deviation=deviation,
        resume=options["resume"],
        started=started,
        progress=tick,
    )
    if bar:
        bar.__exit__(None, None, None)
    if picture:
        _draw_preview(source, output, settings, picture)
    result |= {"deviation": deviation, "preview": picture}
    made = [str(path) for path in (output, deviation, picture) if path]
    console.emit(result, as_json=options["as_json"], text="\n".join(made))


def _draw_preview(
    source: Path, output: Path, settings: inference.InferSettings, picture: Path
) -> None:
    job = inference.prepare(source, settings, restore.BICUBIC_SCALE)
    with job.scene as scene:
        preview.before_after(scene, output, job.values, picture, job.scale)


def _deviation_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}_std{output.suffix}")


def _show_plan(
    source: Path,
    settings: inference.InferSettings,
    restorers: Sequence[restore.Restorer],
    as_json: bool,
) -> None:
    """Print tiles, cost and memory, and the time that one measured tile promises."""
    first = restorers[0]
    job = inference.prepare(source, settings, first.scale)
    with job.scene as scene:
        side = settings.tile + 2 * restore.MARGIN
        tile = np.zeros((1, len(scene.bands), side, side), np.float32)
        plan = {
            "input": f"{scene.width} x {scene.height}, {len(scene.bands)} bands of {scene.dtype}",
            "output": f"{scene.width * first.scale} x {scene.height * first.scale}",
            "range": str(job.values),
            "tiles": len(job.tiles),
            "network_calls": len(job.tiles) * len(restorers) * getattr(first, "steps", 0),
            "memory_mb": round(job.memory / 2**20),
        }
    shared.show_plan(
        plan,
        lambda: restore.restore_bands(first, tile, np.zeros((1, 2), np.int64)),
        len(job.tiles) * len(restorers),
        as_json=as_json,
    )


def _infer_many(
    inputs: Sequence[Path],
    folder: Path,
    settings: inference.InferSettings,
    options: dict[str, Any],
) -> None:
    if options["preview"] or options["dry_run"]:
        raise InputError("--preview and --dry-run take one input and an output file")
    settings.restorers()  # so that a wrong model is refused once, before any worker starts

    def outputs_of(path: Path) -> tuple[Path, ...]:
        target = folder / f"{path.stem}_x4.tif"
        return (target, _deviation_path(target)) if settings.uncertainty else (target,)

    infer_many(
        inputs,
        folder,
        functools.partial(make_worker, settings),
        outputs_of,
        inference.identity(settings),
        options,
    )


def make_worker(settings: inference.InferSettings) -> batch.Process:
    """Load the model once; the returned function enlarges one item."""
    restorers = settings.restorers()

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        result = inference.infer(
            item.inputs[0],
            temporaries[0],
            settings,
            restorers,
            deviation=temporaries[1] if len(temporaries) > 1 else None,
            store=item.outputs[0],
        )
        return {"tiles": float(result["tiles"])}

    return process


def train(tiles: Path, folder: Path, options: dict[str, Any]) -> None:
    """Train, then write `model.safetensors` with its card."""
    if not tiles.is_dir():
        raise InputError(f"{tiles}: no such folder of training tiles")
    config = SMALL if options["preset"] == "small" else ModelConfig()
    small = options["preset"] == "small"
    config = dataclasses.replace(
        config, network=dataclasses.replace(config.network, cpem=options["cpem"])
    )
    start = None
    if options["init"]:
        model, _ = load_model(options["init"])
        config, start = model.config, model.network.state_dict()
    settings = TrainSettings(
        steps=options["steps"],
        batch_size=options["batch"],
        learning_rate=options["learning_rate"],
        warmup_steps=min(100, options["steps"] // 10),
        clip_norm=1.0 if small else 0.0,
        ema_decay=0.998 if small else 0.995,
        **shared.run_settings(options),
    )
    data = training.DataSettings(
        patch=options["patch"],
        final_share=0.5 if small else 0.0,
        own_share=0.5 if small and options["perceptual_weight"] else 0.0,
        perceptual_weight=options["perceptual_weight"],
    )
    model = training.train(
        config, tiles, settings, data, folder, start=start, quiet=options["quiet"]
    )
    if not shared.is_first_process():
        return
    card = ModelCard(
        name=folder.name,
        task=TASK,
        summary=f"EDiffSR x{config.network.scale}, trained by rs-sr train.",
        config=config.to_dict(),
        data=f"{tiles.name}: {len(list(tiles.glob('*.tif')))} GeoTIFF tiles",
        split=f"every {data.holdout}th tile held out for validation",
        training=f"{settings.steps} steps of {settings.batch_size} crops, {settings.precision}",
        seed=settings.seed,
        date=datetime.date.today().isoformat(),
    )
    target = shared.save_trained(folder, model.network, card)
    console.emit({"model": target}, as_json=options["as_json"], text=str(target))


def evaluate(folder: Path, options: dict[str, Any]) -> None:
    """Print the table of means; write the reports where asked."""
    from .evaluation import compare as evaluation

    set_threads()
    pairs = evaluation.find_pairs(folder, restore.BICUBIC_SCALE, options["match"])
    contenders: dict[str, restore.Restorer] = {restore.BICUBIC: restore.BicubicRestorer()}
    for name in options["model"]:
        for steps in options["steps"] or (None,):
            restorer = restore.load_restorer(
                name,
                sampler=options["sampler"],
                steps=steps,
                seed=options["seed"],
                device=options["device"],
                precision=options["precision"],
            )
            count = getattr(restorer, "steps", 0)
            contenders[f"{Path(name).stem} {count} step{'s' * (count != 1)}"] = restorer
    with Progress("evaluate", len(pairs), unit="image", quiet=options["quiet"]) as bar:
        rows, shown = evaluation.evaluate(
            pairs,
            contenders,
            tile=options["tile"],
            overlap=options["overlap"],
            progress=lambda done, total: bar.update(done),
        )
    means = evaluation.summarise(rows)
    text = f"{len(pairs)} images\n{console.table(means)}"
    if options["output"]:
        made = evaluation.write_reports(options["output"], rows, shown)
        text += "".join(f"\n{path}" for path in made)
    console.emit({"images": len(pairs), "means": means}, as_json=options["as_json"], text=text)


def models(as_json: bool) -> None:
    """Print every packaged model's card in short."""
    paths = available(TASK).values()
    cards = [read_card(path) for path in paths]
    lines = []
    for path, card in zip(paths, cards, strict=True):
        lines += shared.card_lines(path, card)
    lines += [restore.BICUBIC, "  The baseline: bicubic enlargement, by the same path."]
    console.emit(
        {"models": [dataclasses.asdict(card) for card in cards]},
        as_json=as_json,
        text="\n".join(lines),
    )


def bench(options: dict[str, Any]) -> None:
    """Print parameters, MACs and the time of one tile."""
    threads = set_threads()
    model, card = load_model(options["model"])
    side = options["tile"] * model.config.network.scale
    image = (1, model.config.network.channels, side, side)
    cost = efficiency.cost(model.network, image, image, (1,))
    restorer = restore.DiffusionRestorer(
        model, steps=options["steps"], device=options["device"], precision=options["precision"]
    )
    margin = options["tile"] + 2 * restore.MARGIN
    low = np.random.default_rng(0).random((1, image[1], margin, margin), dtype=np.float32)
    run: Callable[[], Any] = functools.partial(restorer, low, np.zeros((1, 2), np.int64), 0)
    timing = efficiency.bench(run, repeats=options["repeats"])
    result = {
        "model": card.name,
        "parameters": cost.parameters,
        "macs_per_step": cost.macs,
        "steps": restorer.steps,
        "threads": threads,
        **dataclasses.asdict(timing),
    }
    text = "\n".join(f"{name}: {value}" for name, value in result.items())
    console.emit(result, as_json=options["as_json"], text=text)


def export(output: Path, model: str, tile: int, overwrite: bool) -> None:
    """Write ONNX and say how closely it agrees."""
    files.check_output(output, overwrite=overwrite)
    loaded, _ = load_model(model)
    difference = exporting.export_onnx(loaded, output, tile=tile)
    console.say(f"ONNX Runtime and torch agree within {difference:.1e}")
    console.emit({}, as_json=False, text=str(output))


def convert(published: Path, output: Path, overwrite: bool) -> None:
    """Convert and say what was found."""
    files.check_output(output, overwrite=overwrite)
    card, parameters = conversion.convert(published, output)
    network = card.config["network"]
    console.say(
        f"{parameters:,} parameters fit: width {network['width']}, encoder "
        f"{network['encoder_blocks']}, middle {network['middle_blocks']}, decoder "
        f"{network['decoder_blocks']}"
    )
    console.emit({}, as_json=False, text=str(output))

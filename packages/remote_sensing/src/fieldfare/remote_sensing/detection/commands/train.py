# SPDX-License-Identifier: Apache-2.0
"""rs-detect train."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fieldfare.common import console
from fieldfare.common.commands.train import (
    is_first_process,
    run_settings,
    tell_trained,
    today,
)
from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import Metric, ModelCard, save_with_page

from ...rasters.opening import environment
from ..data.table import LabelledScene, classes_of, read_table
from ..inference.tiling import COARSEST
from ..networks.leyolo import DetectorConfig, LeYOLO
from ..networks.models import TASK, load_model
from ..options import TrainOptions
from ..training import run as training
from ..training.knowledge import learn_parts

GSD = 0.3
"""Metres per pixel of a fresh network."""


@environment()
def train(table: Path, options: TrainOptions) -> None:
    """Train on a table of scenes; write `model.safetensors` with its card."""
    if options.patch % COARSEST:
        raise InputError(f"--patch {options.patch}: must be a multiple of {COARSEST}")
    start = load_model(options.init)[0] if options.init else None
    bands = start.config.in_channels if start else 3
    scenes, messages = read_table(table, bands=bands)
    for text in messages:
        console.say(text, quiet=options.quiet)
    config = _config(scenes, start, options)
    data = training.DataSettings(
        patch=options.patch, point_size=options.point_size, reach=options.reach
    )
    settings = _settings(options)
    network, validation = training.train(
        config,
        scenes,
        settings,
        data,
        options.output,
        start=start.state_dict() if start else None,
        quiet=options.quiet,
    )
    if not is_first_process():
        return
    metrics: tuple[Metric, ...] = ()
    parts: dict[str, dict[str, Tensor]] = {}
    if validation:
        choice = validation.choose(network)
        config = dataclasses.replace(config, threshold=choice.threshold, nms=choice.nms)
        words = f"validation scenes, middles within {options.reach:g} m, best threshold"
        metrics = (Metric("f1", choice.f1, words),) if math.isfinite(choice.f1) else ()
        network.config = config
        told = functools.partial(console.say, quiet=options.quiet)
        parts = learn_parts(network.eval(), scenes, reach=options.reach, told=told)
    card = _card(config, table, scenes, settings, options)
    card = dataclasses.replace(card, metrics=metrics)
    target = save_with_page(options.output / "model.safetensors", network.state_dict(), card, parts)
    tell_trained(target, options)


def _config(
    scenes: Sequence[LabelledScene], start: LeYOLO | None, options: TrainOptions
) -> DetectorConfig:
    """The network's shape: fresh, or that of the model to start from."""
    points = any(scene.labels.are_points.any() for scene in scenes)
    size = options.point_size if points else None
    if start is None:
        return DetectorConfig(
            network=options.architecture,
            classes=classes_of(scenes, options.classes),
            gsd=options.gsd or GSD,
            point_size=size,
        )
    found = classes_of(scenes, options.classes or ",".join(start.config.classes))
    if found != start.config.classes:
        raise InputError(
            f"--init: that model knows {', '.join(start.config.classes)}, --classes asks for "
            f"{', '.join(found)}; train a fresh network for other classes"
        )
    gsd = options.gsd or start.config.gsd
    return dataclasses.replace(start.config, gsd=gsd, point_size=size)


def _settings(options: TrainOptions) -> TrainSettings:
    every = max(1, min(200, options.steps // 5))
    return TrainSettings(
        warmup_steps=min(100, options.steps // 10),
        weight_decay=1e-2,
        clip_norm=5.0,
        ema_decay=0.998,
        final_learning_rate=options.learning_rate / 100,
        **run_settings(options),
        checkpoint_every=max(1, every // 2),
        log_every=min(50, every),
        validate_every=every,
    )


def _card(
    config: DetectorConfig,
    table: Path,
    scenes: Sequence[LabelledScene],
    settings: TrainSettings,
    options: TrainOptions,
) -> ModelCard:
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for scene in scenes:
        counts[scene.split] += 1
    objects = sum(len(scene.labels.boxes) for scene in scenes if scene.split == "train")
    return ModelCard(
        name=options.output.name,
        task=TASK,
        summary=f"{config.network} for {', '.join(config.classes)}, at {config.gsd:g} m per pixel.",
        config=config.to_dict(),
        data=f"{table.name}: {counts['train']} scenes with {objects} objects",
        split=f"by area: {counts['val']} scenes for validation, {counts['test']} for test",
        training=(
            f"trained by rs-detect train; {settings.steps} steps of {settings.batch_size} patches "
            f"of {options.patch}, learning rate {settings.learning_rate:g}, {settings.precision}, "
            f"{settings.device}"
        ),
        seed=settings.seed,
        date=today(),
    )

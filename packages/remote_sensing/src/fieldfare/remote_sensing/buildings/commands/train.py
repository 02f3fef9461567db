# SPDX-License-Identifier: Apache-2.0
"""rs-buildings train and adapt."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fieldfare.common import console, files
from fieldfare.common.commands.train import (
    is_first_process,
    run_settings,
    tell_trained,
    today,
)
from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard, save_with_page

from ...rasters.opening import environment
from ..data.sensors import CoarserScene, pixel_of, provide
from ..data.table import LabelledScene, read_scene, read_table
from ..evaluation import label_shift
from ..networks.building_network import BuildingNetwork, NetworkConfig, depths_of, expert_of
from ..networks.models import TASK, describe, load_any, load_model, spoken
from ..options import DEFAULT_MODEL, AdaptOptions, TrainOptions, TrainPlan
from ..training import adaptation
from ..training import run as training
from ..training.few import around_roofs, stay_near
from ..training.knowledge import learn_parts

DEFAULTS = {"table": (2000, 1e-3), "scene": (200, 3e-4), "noisy": (2000, 1e-3)}
DEFAULTS |= {"clean": (500, 5e-4)}
"""Steps and learning rate."""

SCENE_ZOOM = 1.25
"""How much the size of a scene's own roofs is varied."""


@environment()
def train(inputs: Sequence[Path], options: TrainOptions) -> None:
    """Train on a table, or on a scene and a few labels; write `model.safetensors` with its card."""
    if len(inputs) == 1:
        plan = _plan(options, "table")
        config, start = _network(plan, load_any)
        config = _with_experts(config, options)
        scenes = _scenes(inputs[0], config, quiet=options.quiet)
        data = _data(plan)
    elif len(inputs) == 2:
        if options.expert_gsd:
            raise InputError("--expert-gsd: takes a table of scenes, not one scene")
        plan = _plan(options, "scene")
        plan = dataclasses.replace(
            plan, init=options.init or DEFAULT_MODEL, patch=options.patch or 128
        )
        config, start = _network(plan)
        data = dataclasses.replace(_data(plan), zoom=SCENE_ZOOM)
        scenes = _parts(inputs, start, data, quiet=options.quiet)
    else:
        raise InputError("give a table of scenes, or one scene and its labels")
    settings = _settings(plan)
    _check_batch(config, plan)
    network = _train(config, start, scenes, settings, data, plan)
    if not is_first_process():
        return
    if len(inputs) == 2 and start is not None:
        stay_near(network, start)
    how = f"trained by rs-buildings train, loss {data.loss}"
    quiet = options.quiet
    target = _save(network, inputs[0], scenes, settings, options.output, how, quiet=quiet)
    tell_trained(target, plan)


def _parts(
    inputs: Sequence[Path],
    start: BuildingNetwork | None,
    data: training.DataSettings,
    *,
    quiet: bool,
) -> list[LabelledScene]:
    """What a few labels and a model's own certainty tell of a scene."""
    assert start is not None
    scene, messages = read_scene(*inputs, bands=start.config.in_channels)
    side = math.ceil(data.patch * 1.42 * data.zoom)
    parts = around_roofs(scene, start, side=side)
    roofs = len(scene.labels.polygons)
    messages.append(f"{scene.image}: {roofs} labelled roofs; what has no label is unknown")
    for text in messages:
        console.say(text, quiet=quiet)
    return parts


def _train(
    config: NetworkConfig,
    start: BuildingNetwork | None,
    scenes: Sequence[LabelledScene],
    settings: TrainSettings,
    data: training.DataSettings,
    options: TrainPlan,
) -> BuildingNetwork:
    """Plain training, from a model or from the encoder's weights."""
    return training.train(
        config,
        scenes,
        settings,
        data,
        options.output,
        start=start.state_dict() if start else None,
        encoder_weights=options.encoder_weights,
        quiet=options.quiet,
    )


@environment()
def adapt(table: Path, options: AdaptOptions) -> None:
    """Train on noisy labels, or go on with clean ones; write model, card and report."""
    stage, method, folder = options.stage, options.method, options.output
    if stage == "clean" and not options.init:
        raise InputError("--stage clean: give the model of the noisy stage with --init")
    if stage == "noisy" and method != "finetune":
        raise InputError("--method: belongs to --stage clean")
    plan = _plan(options, stage)
    config, start = _network(plan)
    scenes = _scenes(table, config, quiet=options.quiet)
    settings, data = _settings(plan), _data(plan)
    if stage == "noisy" or start is None:
        network = _train(config, start, scenes, settings, data, plan)
    else:
        network = adaptation.adapt_clean(
            start,
            scenes,
            _adaptation(config, options),
            settings,
            data,
            folder,
            quiet=options.quiet,
        )
    if not is_first_process():
        return
    how = f"rs-buildings adapt, stage {stage}" + (f", {method}" if stage == "clean" else "")
    target = _save(network, table, scenes, settings, folder, how, quiet=options.quiet)
    report = _report(scenes, start if stage == "clean" else None, network)
    files.write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    lines = [_shift_line(report["label_shift"])]
    if report["sizes"]:
        lines.append(console.table(report["sizes"]))
    lines += [str(target), str(folder / "report.json")]
    result = {"model": target, **report}
    console.emit(result, as_json=options.as_json, text="\n".join(lines))


def _plan(options: TrainOptions | AdaptOptions, kind: str) -> TrainPlan:
    """The same with steps and learning rate."""
    shared = {field.name for field in dataclasses.fields(TrainPlan)}
    given = {name: value for name, value in vars(options).items() if name in shared}
    steps, rate = DEFAULTS[kind]
    given["steps"] = options.steps or steps
    given["learning_rate"] = options.learning_rate or rate
    return TrainPlan(**given)


def _adaptation(config: NetworkConfig, options: AdaptOptions) -> adaptation.AdaptSettings:
    """How the clean stage goes; a student of distillation may be another kind of network."""
    student = None
    if options.method == "distillation":
        student = dataclasses.replace(
            config, architecture=options.architecture, encoder=options.encoder
        )
    return adaptation.AdaptSettings(
        method=options.method, student=student, encoder_weights=options.encoder_weights
    )


def _report(
    scenes: Sequence[LabelledScene], before: BuildingNetwork | None, after: BuildingNetwork
) -> dict[str, Any]:
    """How the labels lie, and what the clean stage changed on scenes kept out of training."""
    held_out = [scene for scene in scenes if scene.split != "train"]
    trained = [scene for scene in scenes if scene.split == "train"]
    shift = label_shift.scenes_shift(before or after, trained)
    sizes = adaptation.size_report(before, after, held_out) if before and held_out else []
    return {"label_shift": None if shift is None else dataclasses.asdict(shift), "sizes": sizes}


def _shift_line(shift: dict[str, Any] | None) -> str:
    if shift is None:
        return "label shift: too few buildings found to tell"
    return (
        f"label shift: labels lie {shift['distance_m']:.2f} m from the predictions, bearing "
        f"{shift['direction']:.0f} degrees (median of {shift['pairs']} buildings)"
    )


def _network(
    options: TrainPlan, load: Callable[[str], tuple[BuildingNetwork, ModelCard]] = load_model
) -> tuple[NetworkConfig, BuildingNetwork | None]:
    """The network's shape, and the model to start from, if any."""
    if options.init:
        start, _ = load(options.init)
        config = start.config
        if options.gsd:
            try:
                config = dataclasses.replace(config, gsd=options.gsd)
            except ValueError as error:
                raise InputError(f"--gsd {options.gsd:g}: {error}") from None
            start.config = config
        return config, start
    queried = options.architecture == "pem"
    config = NetworkConfig(
        architecture=options.architecture,
        encoder=options.encoder,
        outputs=("building", "edge") if options.edge_weight or queried else ("building",),
        gsd=options.gsd or 0.15,
    )
    try:
        BuildingNetwork(config)
    except ValueError as error:
        if "stride 2" not in str(error):
            raise InputError(f"--encoder {options.encoder}: {error}") from None
        config = dataclasses.replace(config, deep_supervision=False)
        console.say(f"{options.encoder}: has no features at stride 2, so only the whole depth")
    return config, None


def _with_experts(config: NetworkConfig, options: TrainOptions) -> NetworkConfig:
    """The same with the experts that are asked for."""
    wanted = options.expert_gsd
    if not wanted or wanted == config.experts:
        return config
    text = ",".join(f"{size:g}" for size in wanted)
    if config.experts:
        raise InputError(
            f"--expert-gsd {text}: {options.init} has experts already, for "
            f"{spoken(config.experts)} m"
        )
    try:
        config = dataclasses.replace(config, experts=wanted)
        BuildingNetwork(config)
    except ValueError as error:
        raise InputError(f"--expert-gsd {text}: {error}") from None
    return config


def _check_batch(config: NetworkConfig, options: TrainPlan) -> None:
    if config.architecture == "pem" and options.batch < 2 * options.devices * options.num_nodes:
        raise InputError(
            f"--batch {options.batch}: pem needs two patches for each process, whose norms stand "
            "on maps of one pixel"
        )
    if config.experts and options.devices * options.num_nodes > 1:
        raise InputError(
            "--devices, --num-nodes: a model with experts trains in one process, as the share of a "
            "batch may hold no image of an expert"
        )


def _scenes(table: Path, config: NetworkConfig, *, quiet: bool) -> list[LabelledScene]:
    scenes, messages = read_table(table, bands=config.in_channels)
    if config.experts:
        scenes, added = provide(scenes, config.experts, functools.partial(expert_of, config))
        messages += added
    for text in messages:
        console.say(text, quiet=quiet)
    return scenes


def _settings(options: TrainPlan) -> TrainSettings:
    every = max(1, min(200, options.steps // 5))
    share = options.encoder_rate
    if share is None:
        share = 1.0 if options.init or options.encoder_weights == "none" else 0.1
    return TrainSettings(
        warmup_steps=min(50, options.steps // 10),
        weight_decay=1e-2,
        rate_factors=() if share == 1 else (("encoder.", share),),
        clip_norm=1.0,
        ema_decay=0.995,
        **run_settings(options),
        checkpoint_every=every,
        log_every=min(20, every),
        validate_every=every,
    )


def _data(options: TrainPlan) -> training.DataSettings:
    return training.DataSettings(
        patch=options.patch or 256,
        loss=options.loss,
        depth_weights=options.depth_weights,
        edge_weight=options.edge_weight,
    )


def _save(
    network: BuildingNetwork,
    table: Path,
    scenes: Sequence[LabelledScene],
    settings: TrainSettings,
    folder: Path,
    how: str,
    *,
    quiet: bool,
) -> Path:
    """Write `model.safetensors`, with what the model knows, and its page."""
    config = network.config
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for scene in scenes:
        counts[scene.split] += not isinstance(scene, CoarserScene)
    made = sum(isinstance(scene, CoarserScene) for scene in scenes)
    depths = "".join(f", L{depth}" for depth in depths_of(config))
    card = ModelCard(
        name=folder.name,
        task=TASK,
        summary=f"Building footprints: {describe(config)}{depths}, at {config.gsd:g} m per pixel.",
        config=config.to_dict(),
        data=f"{table.name}: {counts['train']} scenes"
        + (f"; {made} of coarser pixels made of finer scenes" if made else ""),
        split=f"by area: {counts['val']} scenes for validation, {counts['test']} for test",
        training=(
            f"{how}; {settings.steps} steps of {settings.batch_size} patches, learning rate "
            f"{settings.learning_rate:g}, {settings.precision}, {settings.device}"
        ),
        seed=settings.seed,
        date=today(),
    )
    parts = _parts_known(network, scenes, quiet=quiet)
    if not parts:
        console.say(
            "too few blocks of validation scenes to learn where the model is at home; infer will "
            "not say",
            quiet=quiet,
        )
    return save_with_page(folder / "model.safetensors", network.state_dict(), card, parts)


def _parts_known(
    network: BuildingNetwork, scenes: Sequence[LabelledScene], *, quiet: bool
) -> dict[str, dict[str, Tensor]]:
    """What the model knows, by its training and validation scenes."""
    places: dict[str, dict[str, list[LabelledScene]]] = {"train": {}, "val": {}, "test": {}}
    experts = network.config.experts
    for scene in scenes:
        place = scene.area
        if experts:  # each is looked at by its own
            place += f", {experts[expert_of(network.config, pixel_of(scene))]:g} m"
        places[scene.split].setdefault(place, []).append(scene)
    told = functools.partial(console.say, quiet=quiet)
    return learn_parts(network.eval(), places["train"], places["val"], told=told)

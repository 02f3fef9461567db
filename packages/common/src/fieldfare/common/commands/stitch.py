# SPDX-License-Identifier: Apache-2.0
"""fieldfare stitch: two models of one family, and networks between them."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import console
from ..budget import latency
from ..budget.choose import format_macs
from ..budget.front import dominated, draw
from ..budget.variants import SUFFIX, Variant, Variants
from ..elastic.genes import Space
from ..errors import InputError
from ..files import atomic_path, write_text
from ..runtime import resolve_device, set_threads
from ..slim.family import Family, Stitcher
from ..slim.stitch import StitchedNet
from ..slim.workshop import Draft, workshop_of
from ..training import TrainSettings, fit
from ..weights import Metric, ModelCard, locate
from .stitch_options import StitchOptions
from .train import today

NETWORKS, PICTURE = "networks", "front.png"
"""Folder of the networks in that of the run, and the picture of the front."""


def stitch(small: str, large: str, options: StitchOptions) -> None:
    """Train the stitches between two models, then measure and write every network."""
    for path in options.data:
        if not path.exists():
            raise InputError(f"{path}: no such file")
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"{options.output}: is no folder")
    task, workshop = workshop_of(small)
    other, _ = workshop_of(large)
    if other != task:
        raise InputError(f"{large}: is a {other} model, but {small} one of {task}")
    if not isinstance(workshop, Stitcher):
        raise InputError(f"{small}: {task} models cannot be stitched")
    set_threads()
    device = resolve_device(options.device).type
    family = workshop.stitch(
        (small, large), options.data, steps=options.steps, seed=options.seed, device=device,
        quiet=options.quiet,
    )  # fmt: skip
    if options.dry_run:
        _plan(workshop, family, (small, large), options)
        return
    settings = _settings(family, options)
    trained(family, settings, options.output, frozen=options.frozen, quiet=options.quiet)
    _, card = workshop.load(large)
    card = dataclasses.replace(
        card,
        training=f"{small} and {large}, stitched by fieldfare stitch: {settings.steps} steps of "
        f"{settings.batch_size} samples on {', '.join(path.name for path in options.data)}, each "
        f"of one stitch drawn, taught by {large} too; "
        + ("the blocks are those of both models" if options.frozen else "all blocks learnt"),
        seed=options.seed,
        date=today(),
    )
    found = _written(task, workshop, family, (small, large), card, options)
    path = options.output / f"{task}{SUFFIX}"
    found.write(path)
    draw(found, options.output / PICTURE)
    rows = _rows(found)
    text = f"{console.table(rows)}\n{path}"
    console.emit({"variants": path, "networks": rows}, as_json=options.as_json, text=text)


def trained(
    family: Family, settings: TrainSettings, folder: Path, *, frozen: bool, quiet: bool
) -> None:
    """The stitches begin as least squares; every step trains one network, drawn evenly.

    Args:
        frozen: only the stitches are drawn, and the two given networks stay as they are, to the
            bit; else all networks are drawn and all weights trained, as published.
        folder: receives the checkpoint; a run goes on from it.
    """
    net, given = family.network, len(family.network.anchors)
    net.anchors.requires_grad_(not frozen)
    net.initialise(family.sample())
    space = net.choices()
    if frozen:
        space = Space({"network": space.genes["network"][given:]})

    def loss(network: nn.Module, batch: Any) -> Tensor:
        wanted: Any = network
        wanted.set(space.sample(np.random.default_rng(int(torch.randint(2**62, ())))))
        return family.loss(network, batch)

    fit(net, family.lessons(), loss, settings, folder, quiet=quiet).cpu()


def names(net: StitchedNet) -> dict[int, str]:
    """Of two networks and their stitches, for files and `--variant`: small2-large1.

    That are so many blocks of the small one, then the last ones of the large one.
    """
    found = {0: "small", 1: "large"}
    whole: Any = net.anchors[1]
    for number in net.choices().genes["network"][2:]:
        last, first, _ = net.join(number)
        found[number] = f"small{last + 1}-large{sum(whole.stages) - first}"
    return found


def _settings(family: Family, options: StitchOptions) -> TrainSettings:
    """With what the run depends on."""
    digest = hashlib.sha256()
    for tensor in family.network.anchors.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    settings: TrainSettings = family.settings
    identity = f"{settings.identity} {options.frozen} {digest.hexdigest()}"
    return dataclasses.replace(settings, identity=identity)


def _networks(workshop: Stitcher, family: Family, models: tuple[str, str]) -> dict[str, nn.Module]:
    """By name: both as given, then the stitches."""
    return {
        name: workshop.load(models[number])[0] if number < 2 else family.extract(number)
        for number, name in names(family.network).items()
    }


def _written(
    task: str,
    workshop: Stitcher,
    family: Family,
    models: tuple[str, str],
    card: ModelCard,
    options: StitchOptions,
) -> Variants:
    """Measure and write every network; the two given ones are copied."""
    folder = options.output / NETWORKS
    folder.mkdir(exist_ok=True)
    if (load := latency.overload()) is not None:
        console.say(f"{load}; trust the operations more than the times", quiet=options.quiet)
    whole = dict(zip(("small", "large"), models, strict=True))
    made = _networks(workshop, family, models)
    units = {name: workshop.unit_of(network)[1] for name, network in made.items()}
    seconds = latency.measure(units, repeats=options.repeats)
    rows = []
    for name, network in made.items():
        quality, macs = family.data.score(network), workshop.macs(network)
        target = folder / f"{name}.safetensors"
        if name in whole:
            _copy(locate(whole[name], task), target)
        else:
            where = f"split val of {', '.join(path.name for path in options.data)}"
            own = dataclasses.replace(
                card,
                name=name,
                summary=f"Blocks of {models[0]}, then of {models[1]}: {name}.",
                metrics=(Metric(workshop.metric, quality, where),),
            )
            workshop.save(Draft(network), own, family.data, target)
        settings = {"model": f"{NETWORKS}/{target.name}"}
        size = target.stat().st_size
        rows.append(Variant(name, settings, round(quality, 4), macs, size, seconds[name]))
        console.say(f"{name}: {quality:.4f}, {format_macs(macs)}", quiet=options.quiet)
    return Variants(task, workshop.unit, workshop.metric, latency.machine(), tuple(rows))


def _copy(model: Path, target: Path) -> None:
    """A model file as it is, and its page where there is one."""
    if (page := model.with_suffix(".md")).is_file():
        write_text(target.with_suffix(".md"), page.read_text(encoding="utf-8"))
    with atomic_path(target) as temporary:
        temporary.write_bytes(model.read_bytes())


def _rows(found: Variants) -> list[dict[str, Any]]:
    return [
        {
            "network": one.name,
            "quality": one.quality,
            "operations": format_macs(one.macs),
            "ms": round(1000 * one.seconds, 3),
            "MB": round(one.bytes / 1e6, 2),
            "beaten": "yes" if out else "",
        }
        for one, out in zip(found.variants, dominated(found.variants), strict=True)
    ]


def _plan(
    workshop: Stitcher, family: Family, models: tuple[str, str], options: StitchOptions
) -> None:
    made = _networks(workshop, family, models)
    costs = {name: workshop.macs(network) for name, network in made.items()}
    rows = [{"network": name, "operations": format_macs(cost)} for name, cost in costs.items()]
    plan = {"networks": costs, "unit": workshop.unit, "steps": family.settings.steps}
    text = f"{console.table(rows)}\n{family.settings.steps} steps; operations of a {workshop.unit}"
    console.emit(plan, as_json=options.as_json, text=text)

# SPDX-License-Identifier: Apache-2.0
"""net-traffic train and pretrain."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fieldfare.common import console, files
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import resolve_device
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard, load_model_file, locate, save_model_file

from ..data.dataset import load_flows, read_captures
from ..data.labels import SPLITS, read_labels
from ..data.masking import FIELDS
from ..inference.classifier import ClassifierConfig
from ..networks.architectures import TASK, Architecture, architecture
from ..options import PRESETS
from ..training import SHOWN_EVERY, FineTuning, pretrain, train_classifier

CAPTURES = (".pcap", ".pcapng", ".cap", ".gz", ".zst")
LIMITS = (
    "Knows the classes and the networks that it was trained on; labels whatever it sees as one of "
    "them. Scores on the captures of one place say little of another's."
)


def train(labels: Path, output: Path, options: Mapping[str, Any]) -> None:
    """Fine-tune a classifier, then write `model.safetensors` with its card."""
    kind, config, start, start_path = _network(options)
    hidden, optional = fields(options["hide"]), fields(options["optional"])
    if twice := set(hidden) & set(optional):
        raise InputError(f"--optional: {min(twice)} is always hidden, by --hide")
    table = read_labels(labels, options["captures"])
    data = load_flows(table, cache=output / "flows", quiet=options["quiet"])
    how = FineTuning(hidden, optional, options["balance"], options["smoothing"], options["shots"])
    settings = _settings(options, validate_every=max(1, options["steps"] // 10))
    network, temperature = train_classifier(
        kind, config, data, how, settings, output,
        start=start, start_path=start_path, quiet=options["quiet"],
    )  # fmt: skip
    described = ClassifierConfig(
        architecture=kind.name,
        network=config.to_dict(),
        classes=data.classes,
        hidden=(*hidden, *optional),
        optional=optional,
        temperature=temperature or 1.0,
    )
    counts = {split: int((data.split == number).sum()) for number, split in enumerate(SPLITS)}
    shots = f", {options['shots']} flows a class of them" if options["shots"] else ""
    card = ModelCard(
        name=output.name,
        task=TASK,
        summary=f"{_title(kind, config)}: {len(data.classes)} classes of traffic.",
        config=dataclasses.asdict(described),
        data=f"{labels.name}: {counts['train']} flows{shots}",
        split=f"by capture: {counts['val']} flows for validation, {counts['test']} for test",
        training=_told(options, settings) + (f"; from {start_path.name}" if start_path else ""),
        limits=LIMITS,
        seed=settings.seed,
        date=datetime.date.today().isoformat(),
    )
    _save(output, network, card, options)


def run_pretraining(sources: Sequence[Path], output: Path, options: Mapping[str, Any]) -> None:
    """Train on captures without labels, then write `model.safetensors` with its card."""
    kind, config = _preset(options["preset"])
    hidden, optional = fields(options["hide"]), fields(options["optional"])
    captures = find_captures(sources)
    flows = read_captures(captures, quiet=options["quiet"])
    settings = _settings(options, validate_every=options["steps"])
    network = pretrain(
        kind, config, flows, hidden, optional, settings, output, quiet=options["quiet"]
    )
    described = ClassifierConfig(
        architecture=kind.name,
        network=config.to_dict(),
        hidden=(*hidden, *optional),
        optional=optional,
    )
    card = ModelCard(
        name=output.name,
        task=TASK,
        summary=f"{_title(kind, config)}, pre-trained without labels.",
        config=dataclasses.asdict(described),
        data=f"{len(captures)} captures, {len(flows)} flows",
        split="none: no labels are read",
        training=_told(options, settings),
        limits="an encoder to fine-tune; it has no classes",
        seed=settings.seed,
        date=datetime.date.today().isoformat(),
    )
    _save(output, network, card, options)


def fields(text: str) -> tuple[str, ...]:
    """Names of `masking.FIELDS`, comma-separated; `none` for none.

    Raises:
        InputError: another name.
    """
    names = () if text == "none" else tuple(name.strip() for name in text.split(","))
    if unknown := set(names) - set(FIELDS):
        raise InputError(f"no field is named {min(unknown)!r}; there are {', '.join(FIELDS)}, none")
    return names


def find_captures(sources: Sequence[Path]) -> list[Path]:
    """Files as they are, and all captures within folders, by name.

    Raises:
        InputError: a missing path, or a folder without captures.
    """
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file")
        if source.is_file():
            found.append(source)
            continue
        inside = sorted(p for p in source.rglob("*") if p.suffix in CAPTURES and p.is_file())
        if not inside:
            raise InputError(f"{source}: holds no captures ({', '.join(CAPTURES)})")
        found += inside
    return found


def _preset(name: str | None) -> tuple[Architecture, Any]:
    kind_name, _, size = (name or PRESETS[0]).partition("/")
    kind = architecture(kind_name)
    return kind, kind.configs[size]


def _network(options: Mapping[str, Any]) -> tuple[Architecture, Any, Any, Path | None]:
    """Architecture, configuration, and tensors to start from with their path."""
    if options["init"] is None:
        return *_preset(options["preset"]), None, None
    if options["preset"] is not None:
        raise InputError("--preset and --init: give one, the network of --init has its own size")
    path = locate(options["init"], TASK)
    card, tensors = load_model_file(path)
    if card.task != TASK:
        raise InputError(f"{path}: is a {card.task} model; this needs one of {TASK}")
    try:
        described = ClassifierConfig.from_card(card.config)
        kind = architecture(described.architecture)
        return kind, kind.read_config(described.network), tensors, path
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its card describes no usable network: {error}") from None


def _settings(options: Mapping[str, Any], validate_every: int) -> TrainSettings:
    steps = options["steps"]
    return TrainSettings(
        steps=steps,
        batch_size=options["batch"],
        learning_rate=options["learning_rate"],
        warmup_steps=steps // 10,
        weight_decay=0.05,
        betas=(0.9, 0.95),
        clip_norm=1.0,
        ema_decay=0.995,
        seed=options["seed"],
        device=resolve_device(options["device"]).type,
        checkpoint_every=max(1, min(100, steps // 5)),
        log_every=max(1, min(20, steps // 5)),
        validate_every=validate_every,
    )


def _title(kind: Architecture, config: Any) -> str:
    name = {"netmamba": "NetMamba", "netfound": "netFound"}[kind.name]
    size = next((size for size, known in kind.configs.items() if known == config), "of own size")
    return f"{name} {size}"


def _told(options: Mapping[str, Any], settings: TrainSettings) -> str:
    return (
        f"{settings.steps} steps of {settings.batch_size} flows, AdamW, learning rate "
        f"{settings.learning_rate:g}, {settings.device}; always hidden: {options['hide']}; shown "
        f"in one batch of {SHOWN_EVERY} only: {options['optional']}"
    )


def _save(folder: Path, network: nn.Module, card: ModelCard, options: Mapping[str, Any]) -> None:
    target = folder / "model.safetensors"
    save_model_file(target, network.state_dict(), card)
    files.write_text(folder / "model.md", card.to_markdown())
    console.emit({"model": target}, as_json=options["as_json"], text=str(target))

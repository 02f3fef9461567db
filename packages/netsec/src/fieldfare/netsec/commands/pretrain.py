# SPDX-License-Identifier: Apache-2.0
"""net-traffic pretrain."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fieldfare.common.commands.train import save_trained, tell_trained, today
from fieldfare.common.weights import ModelCard

from ..data.dataset import read_captures, training_options
from ..data.masking import field_names
from ..data.recordings import find_captures
from ..inference.classifier import ClassifierConfig
from ..networks.architectures import TASK, preset, title
from ..options import PRESETS, PretrainOptions
from ..training import run
from .training_settings import settings_of, told


def pretrain(sources: Sequence[Path], options: PretrainOptions) -> None:
    """Train on captures without labels, then write `model.safetensors` with its card."""
    kind, config = preset(options.preset or PRESETS[0])
    hidden, optional = field_names(options.hide), field_names(options.optional)
    captures = find_captures(sources)
    kept = training_options(kind.kept(config))
    flows = read_captures(captures, options=kept, folder=options.output, quiet=options.quiet)
    settings = settings_of(options, validate_every=options.steps)
    network = run.pretrain(
        kind, config, flows, hidden, optional, settings, options.output, quiet=options.quiet
    )
    described = ClassifierConfig(
        architecture=kind.published.name,
        network=config.to_dict(),
        hidden=(*hidden, *optional),
        optional=optional,
    )
    card = ModelCard(
        name=options.output.name,
        task=TASK,
        summary=f"{title(kind, config)}, pre-trained without labels.",
        config=dataclasses.asdict(described),
        data=f"{len(captures)} captures, {len(flows)} flows",
        split="none: no labels are read",
        training=told(options, settings),
        limits="an encoder to fine-tune; it has no classes",
        seed=settings.seed,
        date=today(),
    )
    tell_trained(save_trained(options.output, network, card), options)

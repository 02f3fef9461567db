# SPDX-License-Identifier: Apache-2.0
"""`train` of wl-precode and wl-power: the run, and the trained network with its card."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fieldfare.common import console
from fieldfare.common.commands.train import is_first_process, save_trained, tell_trained
from fieldfare.common.console.shared import TrainingOptions
from fieldfare.common.runtime import resolve_device
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import Metric, ModelCard

from ..networks.models import task_of
from ..networks.power import IcgnnPower
from ..networks.precoder import IcgnnPrecoder
from .run import training_settings

Network = TypeVar("Network", IcgnnPrecoder, IcgnnPower)


def train_and_save(
    options: TrainingOptions,
    train: Callable[[TrainSettings], Network],
    *,
    command: str,
    noun: str,
    summary: str,
    data: str,
    limits: str,
    measure: Callable[[Network], tuple[Metric, ...]] = lambda _: (),
) -> None:
    """Train, then write `model.safetensors` with its card, and say where.

    Args:
        train: settings to the trained network.
        command: that the card names.
        noun: of what is drawn: channel, network.
        summary, data, limits: for the card.
        measure: of the trained network, for the card and for the end.
    """
    device = resolve_device(options.device).type
    network = train(training_settings(options.steps, options.learning_rate, options.seed, device))
    if not is_first_process():
        return
    card = ModelCard(
        name="model",
        task=task_of(network),
        summary=summary,
        config=network.config,
        data=data,
        data_licence="none: drawn at random",
        split=f"none: every {noun} is new",
        weights_licence="Apache-2.0",
        training=f"{command} train: {options.steps} steps of {options.batch} {noun}s, "
        f"learning rate {options.learning_rate:g}"
        + (f"; from {Path(options.init).name}" if options.init else ""),
        limits=limits,
        seed=options.seed,
        metrics=measure(network),
    )
    for metric in card.metrics:
        console.say(f"{metric.name}: {metric.value:.4g} ({metric.definition})", quiet=options.quiet)
    measured = {metric.name: metric.value for metric in card.metrics}
    tell_trained(save_trained(options.output, network, card), options, **measured)

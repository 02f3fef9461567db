# SPDX-License-Identifier: Apache-2.0
"""Train a site's adapter on a frozen classifier: first the adapter, then its gates alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings

from ..data.dataset import LabelledFlows
from ..data.site import site_vector
from ..inference.start import Start
from ..networks.adapters import adapter_of, tune
from .run import FineTuning, train_classifier, training_flows

GATE_STEPS = 0.25
"""Steps of the gates for each of the adapter."""


def as_known(data: LabelledFlows, classes: tuple[str, ...]) -> LabelledFlows:
    """The same flows with their labels numbered as a model's classes.

    Raises:
        InputError: a class that the model does not know.
    """
    if unknown := sorted(set(np.array(data.classes)[np.unique(data.label)]) - set(classes)):
        raise InputError(
            f"an adapter keeps the classes of its model, which does not know {unknown[0]}"
        )
    place = np.array([classes.index(name) if name in classes else -1 for name in data.classes])
    return replace(data, label=place[data.label], classes=classes)


def train_adapter(
    start: Start,
    data: LabelledFlows,
    how: FineTuning,
    settings: TrainSettings,
    folder: Path,
    rank: int,
    *,
    quiet: bool = False,
) -> dict[str, Tensor]:
    """Train an adapter on the split train of a site; the model itself stays as it is.

    Args:
        start: the model, with classes.
        data: as of `as_known`.
        how, settings, folder: see `train_classifier`; both halves resume from it.
        rank: of the adapter.

    Returns:
        Its tensors by `networks.adapters.adapter_of`, and `site`, (F,) by `data.site`.

    Raises:
        InputError: as of `train_classifier`.
    """

    def half(
        settings: TrainSettings, name: str, before: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        network, _ = train_classifier(
            start.kind, start.config, data, how, settings, folder / name, start=start,
            experts=start.experts, keep_head=True, quiet=quiet,
            prepare=lambda network: tune(network, rank, before),
        )  # fmt: skip
        return adapter_of(network)

    trained = half(settings, "adapter", None)
    steps = max(1, round(GATE_STEPS * settings.steps))
    trained = half(replace(settings, steps=steps, warmup_steps=steps // 10), "gates", trained)
    site = site_vector(training_flows(data, how, settings.seed).flows)
    return trained | {"site": torch.from_numpy(site).float()}

# SPDX-License-Identifier: Apache-2.0
"""net-traffic train --adapter-rank: a small adapter of a frozen model, for one site."""

from pathlib import Path

import numpy as np

from fieldfare.common.commands.train import tell_trained, today
from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, save_with_page

from ..data.dataset import LabelledFlows, load_flows, training_options
from ..data.labels import LabelTable
from ..inference.adapters import ADAPTER_TASK, FILE
from ..inference.start import Start, first_network
from ..networks.adapters import digest
from ..options import TrainOptions
from ..training.adapting import as_known, train_adapter
from ..training.run import FineTuning
from .training_settings import settings_of


def adapt(start: Start | None, table: LabelTable, options: TrainOptions) -> None:
    """Train an adapter, then write it with its card and what its site is like.

    Raises:
        InputError: no model with classes, or options that an adapter has no use for.
    """
    if start is None or start.classes is None:
        raise InputError("--adapter-rank: needs --init, a model with classes that stays as it is")
    for name in ("experts", "teacher"):
        if getattr(options, name) is not None:
            raise InputError(f"--adapter-rank: has no use for --{name}")
    kept = training_options(
        start.kind.kept(start.config), timed=table.timed, varied=options.variations > 0
    )
    data = load_flows(table, options=kept, cache=options.output / "flows", quiet=options.quiet)
    data = as_known(data, start.classes)
    how = FineTuning(
        start.hidden, (), options.balance, options.smoothing, options.shots, options.per_capture,
        options.variations, robust=options.robust, contrast=options.contrast,
    )  # fmt: skip
    settings = settings_of(options, validate_every=max(1, options.steps // 10))
    tensors = train_adapter(
        start, data, how, settings, options.output, options.adapter_rank, quiet=options.quiet
    )
    card = ModelCard(
        name=options.output.name,
        task=ADAPTER_TASK,
        summary=f"Adapter of {start.path.stem} for the site of {options.output.name}.",
        config={"base": _base(start, data.classes), "rank": options.adapter_rank},
        data=f"{_count(data)} flows",
        split="the split train",
        training=f"{settings.steps} steps of {settings.batch_size} flows, AdamW, learning rate "
        f"{settings.learning_rate:g}, then a quarter of them for the gates; the model is frozen",
        limits="Serves that model alone, and flows like those of its site.",
        seed=settings.seed,
        date=today(),
    )
    tell_trained(save_with_page(Path(options.output) / FILE, tensors, card), options)


def _base(start: Start, classes: tuple[str, ...]) -> str:
    """Which network it belongs to, as `infer` sees that."""
    network = first_network(start.kind, start.config, classes, start, start.experts, keep_head=True)
    return digest(network.state_dict())


def _count(data: LabelledFlows) -> int:
    """Of the split train."""
    return int(np.sum(data.split == 0))

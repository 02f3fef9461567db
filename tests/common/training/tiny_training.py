# SPDX-License-Identifier: Apache-2.0
"""A training run of milliseconds; as a script, the one that tests start, stop and run in two."""

import os
import signal
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from fieldfare.common.console import CommandGroup
from fieldfare.common.training import Draw, Preempted, TrainSettings, fit

SETTINGS = TrainSettings(
    steps=12,
    batch_size=4,
    learning_rate=1e-2,
    warmup_steps=3,
    weight_decay=0.1,
    clip_norm=0.5,
    ema_decay=0.9,
    checkpoint_every=5,
    log_every=4,
    validate_every=6,
)


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Thirteen noisy points, so that epochs and batches of four do not end together."""

    def __init__(self) -> None:
        self.inputs = np.random.default_rng(0).standard_normal((13, 3)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        x = self.inputs[draw.index]
        noise = draw.rng().standard_normal(3).astype(np.float32) / 10
        return torch.from_numpy(x + noise), torch.from_numpy(np.sin(x.sum(keepdims=True)))


class SquaredError:
    """The loss; before the step `at` (from 0, in this process) it does something else."""

    def __init__(self, at: int = -1, before: Any = None) -> None:
        self.at, self.before, self.calls = at, before, 0

    def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if self.calls == self.at:
            self.before()
        self.calls += 1
        return F.mse_loss(model(batch[0]), batch[1])


def ask_to_stop() -> None:
    """What `kill` and a scheduler do."""
    os.kill(os.getpid(), signal.SIGTERM)


def network(dropout: float = 0.0) -> nn.Sequential:
    """The same fresh weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


@click.group(cls=CommandGroup)
def main() -> None:
    """A command as those of the suite."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def endless(folder: Path) -> None:
    """Train until stopped."""
    settings = TrainSettings(steps=10**9, log_every=1, workers=2)
    fit(network(), Points(), SquaredError(), settings, folder)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def parallel(folder: Path) -> None:
    """Train in two processes; only the first is asked to stop, then both go on."""
    settings = TrainSettings(**vars(SETTINGS) | {"clip_norm": 0.0, "devices": 2})
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    loss = SquaredError(3, ask_to_stop) if first else SquaredError()
    try:
        fit(network(), Points(), loss, settings, folder)
    except Preempted as stop:
        click.echo(f"{stop}", err=True)
    model = fit(network(), Points(), SquaredError(), settings, folder)
    torch.save(model.state_dict(), folder / f"weights{os.environ['LOCAL_RANK']}.pt")


if __name__ == "__main__":
    main()

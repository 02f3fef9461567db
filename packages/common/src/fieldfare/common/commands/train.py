# SPDX-License-Identifier: Apache-2.0
"""`train`: from options to settings, and the trained model into its folder."""

import datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import nn

from .. import console
from ..console.shared import ParallelTrainingOptions, RunOptions
from ..runtime import resolve_device, resolve_precision
from ..trust.knowledge import PART, Knowledge
from ..weights import ModelCard, save_with_page


class RunSettings(TypedDict):
    """Fields of `TrainSettings` that the shared options fill."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    device: str
    precision: NotRequired[str]
    devices: NotRequired[int]
    num_nodes: NotRequired[int]
    workers: NotRequired[int]


def run_settings(options: RunOptions) -> RunSettings:
    """What the shared options say, as `TrainSettings` names it."""
    device = resolve_device(options.device)
    found: RunSettings = {
        "steps": options.steps,
        "batch_size": options.batch,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "device": device.type,
    }
    if isinstance(options, ParallelTrainingOptions):
        precision = resolve_precision(options.precision, device)
        found |= {
            "precision": "bf16" if precision == torch.bfloat16 else "fp32",
            "devices": options.devices,
            "num_nodes": options.num_nodes,
            "workers": options.workers,
        }
    return found


def is_first_process() -> bool:
    """Whether this process writes for all that train together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def today() -> str:
    """For the card."""
    return datetime.date.today().isoformat()


def save_trained(
    folder: Path, network: nn.Module, card: ModelCard, knowledge: Knowledge | None = None
) -> Path:
    """Write `model.safetensors` and its page `model.md` into a training run's folder."""
    parts = {PART: knowledge.to_tensors()} if knowledge else None
    return save_with_page(folder / "model.safetensors", network.state_dict(), card, parts)


def tell_trained(target: Path, options: RunOptions, **more: Any) -> None:
    """Print where the model is."""
    console.emit({"model": target, **more}, as_json=options.as_json, text=str(target))

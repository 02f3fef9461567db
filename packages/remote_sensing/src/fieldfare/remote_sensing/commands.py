# SPDX-License-Identifier: Apache-2.0
"""What the verbs of rs-sr and rs-buildings do alike with their options; imported when one runs."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fieldfare.common import console, files
from fieldfare.common.errors import InputError
from fieldfare.common.progress import format_seconds
from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.weights import ModelCard, save_model_file

from .rasters.reading import window_of_bounds


def window_of(
    inputs: Sequence[Path], options: Mapping[str, Any]
) -> tuple[int, int, int, int] | None:
    """(row, column, height, width) that `--window` or `--bbox` asks for; None is everything.

    Raises:
        InputError: both are given, or a bbox with several inputs.
    """
    if not options["bbox"]:
        found: tuple[int, int, int, int] | None = options["window"]
        return found
    if options["window"]:
        raise InputError("--bbox and --window: give one of them")
    if len(inputs) > 1:
        raise InputError("--bbox: takes one input")
    box = window_of_bounds(inputs[0], options["bbox"])
    return box.row_off, box.col_off, box.height, box.width


def check_targets(source: Path, targets: Sequence[Path | None], options: Mapping[str, Any]) -> None:
    """Refuse outputs before work begins; with `--dry-run` they may exist.

    Raises:
        InputError: an output exists and may not be replaced, or is the input.
    """
    for target in targets:
        if target and not options["dry_run"]:
            files.check_output(target, overwrite=options["overwrite"])
        if target and target.exists() and source.exists() and target.samefile(source):
            raise InputError(f"{target}: is the input; choose another output")


def show_plan(
    plan: Mapping[str, Any],
    run: Callable[[], object],
    count: int,
    *,
    as_json: bool,
    notes: Sequence[str] = (),
) -> None:
    """Print what `--dry-run` found, with the time that so many runs like this one will take."""
    for _ in range(2):  # the first one also allocates
        began = time.perf_counter()
        run()
        seconds = (time.perf_counter() - began) * count
    result = {**plan, "seconds": round(seconds, 1)}
    lines = [*notes, *(f"{name}: {value}" for name, value in result.items())]
    lines.append(f"about {format_seconds(seconds)}; nothing was written")
    console.emit(result, as_json=as_json, text="\n".join(lines))


def run_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `options.training_run_options` say, as `TrainSettings` names it."""
    device = resolve_device(options["device"])
    precision = resolve_precision(options["precision"], device)
    return {
        "precision": "bf16" if precision == torch.bfloat16 else "fp32",
        "device": device.type,
        "devices": options["devices"],
        "num_nodes": options["num_nodes"],
        "workers": options["workers"],
        "seed": options["seed"],
    }


def is_first_process() -> bool:
    """Whether this process writes for all that train together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def save_trained(folder: Path, network: torch.nn.Module, card: ModelCard) -> Path:
    """Write `model.safetensors` and its page `model.md` into a training run's folder."""
    target = folder / "model.safetensors"
    save_model_file(target, network.state_dict(), card)
    files.write_text(folder / "model.md", card.to_markdown())
    return target


def card_lines(path: Path, card: ModelCard, more: Sequence[str] = ()) -> list[str]:
    """A packaged model's card in short, for `models`; `more` comes behind what was measured."""
    return [
        card.name,
        f"  {card.summary}",
        *(f"  {metric.name}: {metric.value:.4g}" for metric in card.metrics),
        *(f"  {line}" for line in more),
        f"  trained on: {card.data}",
        f"  limits: {card.limits}",
        f"  card: {path.with_suffix('.md')}",
    ]

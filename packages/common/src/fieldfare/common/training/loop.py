# SPDX-License-Identifier: Apache-2.0
"""The training loop: lightning-fabric for devices, processes and precision; the rest is here.

Fabric's `setup_dataloaders` is not used: it overrides the sampler's epoch with the number of passes
in this process, so a resumed run would replay the first epoch's order.
"""

import contextlib
import hashlib
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..blocks.steps import advance
from ..errors import InputError, RunError
from ..files import atomic_path
from ..progress import Progress
from .ema import ExponentialMovingAverage
from .log import TrainingLog
from .sampler import DrawSampler
from .schedule import cosine_with_warmup

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
CURVE = "learning_curve.png"

Network = TypeVar("Network", bound=nn.Module)


class Preempted(KeyboardInterrupt):
    """Training was interrupted; a checkpoint was written first."""


@dataclass(frozen=True)
class TrainSettings:
    """How long and how to train.

    Attributes:
        steps: optimiser steps.
        batch_size: samples a step over all processes.
        learning_rate: peak of the cosine schedule, reached after `warmup_steps`.
        final_learning_rate: where the schedule ends.
        clip_norm: gradients are scaled to at most this norm; 0 leaves them.
        sgd_momentum: of stochastic gradient descent in place of AdamW; 0 is AdamW.
        ema_decay: of the averaged weights, which are what validation and export see.
        precision: `fp32` or `bf16` (autocast; weights stay float32).
        devices: processes on this machine; num_nodes: machines.
        workers: data-loading processes of each training process.
        rate_factors: (prefix, factor): parameters whose names begin so learn at that multiple of
            the learning rate; the first prefix that fits counts, 0 freezes.
        checkpoint_every, log_every, validate_every: in steps. The logged loss is the mean since
            the row before it, or since the run was resumed.
        identity: whatever else the result depends on (data, loss, network), in any words; a
            checkpoint of another identity is refused.
    """

    steps: int
    batch_size: int = 8
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    rate_factors: tuple[tuple[str, float], ...] = ()
    sgd_momentum: float = 0.0
    clip_norm: float = 0.0
    ema_decay: float = 0.999
    seed: int = 0
    precision: str = "fp32"
    device: str = "cpu"
    devices: int = 1
    num_nodes: int = 1
    workers: int = 0
    checkpoint_every: int = 500
    log_every: int = 50
    validate_every: int = 1000
    identity: str = ""

    def fingerprint(self) -> str:
        """Hash of what must not change between a run and its resumption."""
        free = {"workers", "devices", "num_nodes", "device"}
        free |= {"checkpoint_every", "log_every", "validate_every"}
        kept = {name: value for name, value in asdict(self).items() if name not in free}
        for name in ("identity", "rate_factors", "sgd_momentum"):
            if not kept[name]:
                del kept[name]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def fit(
    model: Network,
    dataset: Dataset[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    settings: TrainSettings,
    folder: Path,
    *,
    validate: Callable[[Network], Mapping[str, float]] | None = None,
    quiet: bool = False,
) -> Network:
    """Train a model; resume from `folder/checkpoint.pt` when it is there.

    A resumed run ends with the weights of an uninterrupted one: samples are a function of the step,
    and torch's global generator (dropout) is seeded anew by the step. With several processes each
    takes its share of the batch; the result is that of one process as long as no layer mixes
    samples or draws random numbers.

    Args:
        model: its weights are the start of a fresh run.
        dataset: map-style, indexed with `Draw`; all randomness must come from the draw.
        loss: (model, batch on the device) -> scalar, the mean over the batch's samples.
        folder: receives checkpoint.pt, log.csv and learning_curve.png; all machines must see it.
        validate: metrics of the averaged model, called on the first process only.

    Returns:
        The model with the averaged weights.

    Raises:
        InputError: the checkpoint is unreadable or of a run with other settings, or the batch
            cannot be shared among the processes.
        RunError: the loss became NaN or infinite; the checkpoint from before is kept.
        Preempted: Ctrl-C or SIGTERM; the checkpoint holds the last finished step. A second Ctrl-C
            does not wait for the step.
    """
    processes = settings.devices * settings.num_nodes
    fabric = Fabric(
        accelerator=settings.device,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy="ddp" if processes > 1 else "auto",
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
    )
    fabric.launch()
    folder.mkdir(parents=True, exist_ok=True)
    wrapped = fabric.setup_module(model)
    ema = ExponentialMovingAverage(model, settings.ema_decay)
    optimizer = _optimizer(model, settings)
    first = _restore(folder / CHECKPOINT, settings, model, ema, optimizer, fabric.device)
    sampler = DrawSampler(
        len(dataset),  # type: ignore[arg-type]
        settings.batch_size,
        seed=settings.seed,
        first=first,
        last=settings.steps,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=settings.workers,
        worker_init_fn=_outlive_stop_signals,
        pin_memory=fabric.device.type == "cuda",
    )
    main = fabric.global_rank == 0
    log = TrainingLog(folder / LOG, resumed_step=first)
    progress = Progress("train", settings.steps, unit="step", done=first, quiet=quiet or not main)

    stop = _StopFlag()
    total, counted = torch.zeros((), device=fabric.device), 0
    model.train()
    with progress, stop, _batches(loader) as batches:
        for step, batch in enumerate(batches, start=first):
            rate = cosine_with_warmup(
                step,
                steps=settings.steps,
                peak=settings.learning_rate,
                floor=settings.final_learning_rate,
                warmup=settings.warmup_steps,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
            torch.manual_seed(_step_seed(settings.seed, step, fabric.global_rank))
            value = loss(wrapped, fabric.to_device(batch))
            fabric.backward(value)
            if settings.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            advance(model)
            optimizer.zero_grad()
            ema.update(model)
            total, counted = total + value.detach().float(), counted + 1
            done, last = step + 1, step + 1 == settings.steps
            stopping = _any_process(stop.asked, fabric) and not last
            logging = last or done % settings.log_every == 0
            saving = last or stopping or done % settings.checkpoint_every == 0
            row: dict[str, float] = {}
            if logging or saving:
                mean = float(fabric.all_reduce(total / counted))  # type: ignore[arg-type]
                if not math.isfinite(mean):
                    raise RunError(f"the loss is {mean} by step {done}; lower the learning rate")
            if logging:
                row = {"loss": mean, "learning_rate": rate}
                total, counted = torch.zeros_like(total), 0
            validating = last or (done % settings.validate_every == 0 and not stopping)
            if main and validate and validating:
                model.eval()
                with ema.applied(model), torch.no_grad():
                    row |= validate(model)
                model.train()
            if main and row:
                log.add(step=done, **row)
            progress.update(done, **{k: v for k, v in row.items() if k != "learning_rate"})
            if main and saving:
                _save(folder / CHECKPOINT, settings, done, model, ema, optimizer)
                if log.rows:
                    log.draw(folder / CURVE)
            if stopping:
                fabric.barrier()  # the first process to fail ends the others: first let it save
                raise Preempted(f"stopped after step {done}; run the same command again to go on")
    model.load_state_dict(ema.shadow)
    return model.eval()


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    groups = _parameter_groups(model, settings.rate_factors)
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.sgd_momentum:
        momentum = settings.sgd_momentum
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=rate, betas=settings.betas, weight_decay=decay)


def _parameter_groups(
    model: nn.Module, factors: tuple[tuple[str, float], ...]
) -> list[dict[str, Any]]:
    """Parameters by the factor on their learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = next((f for prefix, f in factors if name.startswith(prefix)), 1.0)
        groups.setdefault(factor, []).append(parameter)
    return [{"params": found, "factor": factor} for factor, found in groups.items()]


class _StopFlag:
    """Turns Ctrl-C and SIGTERM into a flag while a step runs, so that no step is half done."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def _ask(self, number: int, frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> "_StopFlag":
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _batches(loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """The batches; the loading processes end with the block, whatever else holds the iterator."""
    batches = iter(loader)
    try:
        yield batches
    finally:
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]


def _outlive_stop_signals(worker: int) -> None:
    """In a loading process: Ctrl-C and SIGTERM may reach it too, while the step still needs it.

    Only one SIGTERM, so that its parent can still end it if it hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def _any_process(flag: bool, fabric: Fabric) -> bool:
    """Whether the flag is up in any process: all must leave the loop after the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum"))


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _save(
    path: Path,
    settings: TrainSettings,
    step: int,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizer: torch.optim.Optimizer,
) -> None:
    state = {
        "step": step,
        "settings": settings.fingerprint(),
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    # Into an open file: given a path, torch hides a full disk in an error of its own.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


def _restore(
    path: Path,
    settings: TrainSettings,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """Load a checkpoint if there is one; returns the step to go on from."""
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        known, step = state["settings"], int(state["step"])
    except Exception as error:  # torch raises many kinds for a broken file
        raise InputError(f"{path}: not a readable checkpoint; delete it to start anew") from error
    if known != settings.fingerprint():
        raise InputError(
            f"{path}: belongs to a run with other settings; use the same ones or another folder"
        )
    try:
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: belongs to another network; use the same one or another folder"
        ) from error
    return step

# SPDX-License-Identifier: Apache-2.0
"""What the memory benchmarks share: a measurement in a process of its own, and a table of them."""

import contextlib
import csv
import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fieldfare.medical.inference import memory
from fieldfare.medical.training.losses import deep_supervision

MIB = 2**20

M_MMAP_THRESHOLD = -3
"""Of glibc's mallopt: blocks from this size on are mapped one by one."""

PRELOADED = ["torch", "fieldfare.medical.training.losses", "fieldfare.medical.networks.create"]
"""Imported once, not in each process; none of them computes anything at import."""

POLL_S = 0.01
"""How often a step is looked at that must stay within a budget."""


def in_a_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any] | None:
    """What a function of a module gives in a fresh process; None where it ended over its budget."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return None


def prepare(*, default_allocator: bool = False) -> None:
    """One thread, and an allocator that gives freed tensors back to the system at once.

    By itself glibc keeps freed blocks of up to 32 MB, between which new tensors find no place (they
    are aligned). A stage of 16 reversible blocks then grew to 1073 MiB where 169 are in use, and
    checkpoints to 415 of 239. Clearing fresh pages takes its time, in huge pages half of it.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not default_allocator:
        os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch at its first tensor
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MIB)


@contextmanager
def bytes_kept(module: nn.Module) -> Iterator[list[int]]:
    """Sizes of what autograd keeps for the backward pass, each storage once, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes
    sizes.extend(kept.values())


@contextmanager
def peak_above(before: int, budget: int | None = None) -> Iterator[dict[str, float]]:
    """MiB of the process above `before` at most, and the CPU seconds, of what is done inside.

    Args:
        before: bytes.
        budget: bytes above `before` at which the process ends.
    """
    done = threading.Event()

    def watch(limit: int) -> None:
        while not done.wait(POLL_S):
            if memory.resident() - before > limit:
                os._exit(9)

    if budget is not None:
        threading.Thread(target=watch, args=(budget,), daemon=True).start()
    found: dict[str, float] = {}
    memory.reset_peak()
    began = time.process_time()
    yield found
    found["cpu_s"] = round(time.process_time() - began, 2)
    found["peak_mib"] = round((memory.peak() - before) / MIB, 1)
    done.set()
    if budget is not None and memory.peak() - before > budget:
        os._exit(9)


def training_step(
    build: Callable[[], nn.Module],
    size: Sequence[int],
    *,
    batch: int = 1,
    budget: int | None = None,
    default_allocator: bool = False,
) -> dict[str, Any]:
    """A step of Adam: weights, gradients, moments, images and activations are all counted.

    The step before it, on a small image, is not measured: it sets up the libraries and makes the
    moments.

    Args:
        build: makes the network, of 4 modalities and 3 regions.
        size: of the patch, voxels.
        batch: number of patches.
        budget: bytes at which the process ends.
        default_allocator: see `prepare`.

    Returns:
        parameters, kept_mib, peak_mib and cpu_s.
    """
    prepare(default_allocator=default_allocator)
    _warm_up()
    memory.release()
    before = memory.resident()
    network = build().train()
    optimiser = torch.optim.Adam(network.parameters())
    _step(network, optimiser, (1, *[32] * len(size)))
    kept: list[int] = []
    with peak_above(before, budget) as found:
        kept = _step(network, optimiser, (batch, *size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters, "kept_mib": round(sum(kept) / MIB, 1), **found}


def _step(
    network: nn.Module, optimiser: torch.optim.Optimizer, shape: tuple[int, ...]
) -> list[int]:
    image = torch.randn(shape[0], 4, *shape[1:])
    truth = (torch.rand(shape[0], 3, *shape[1:]) > 0.5).float()
    optimiser.zero_grad()
    with bytes_kept(network) as kept:
        loss = deep_supervision(network(image), truth, (1, 1, 1))
    loss.backward()
    optimiser.step()
    return kept


def _warm_up() -> None:
    layer = nn.Sequential(nn.Conv3d(4, 4, 3), nn.InstanceNorm3d(4), nn.SiLU())
    layer(torch.randn(1, 4, 16, 16, 16)).sum().backward()


def write_csv(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows under the names of all their columns; nothing without a path."""
    if path is None or not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as target:
        writer = csv.DictWriter(target, names)
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")

# SPDX-License-Identifier: Apache-2.0
"""Where and how precisely a network runs: device, precision, seed, threads."""

import os
import random
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .errors import InputError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux lists what the processor can do."""


def resolve_device(name: str = "auto") -> torch.device:
    """The device for a name of `DEVICES` (or `cuda:1`); `auto` takes CUDA where there is one.

    Raises:
        InputError: no such device, or CUDA was asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA GPU here; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: choose one of {', '.join(DEVICES)}") from None


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The compute type for a name of `PRECISIONS`: torch.float32 or torch.bfloat16.

    `auto` takes bfloat16 only where the processor computes in it natively (measured on a CPU with
    AVX2 only: 7 times slower than float32).
    """
    if name not in PRECISIONS:
        raise InputError(f"--precision {name}: choose one of {', '.join(PRECISIONS)}")
    if name == "auto":
        name = "bf16" if native_bfloat16(device.type) else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


@cache
def native_bfloat16(device_type: str) -> bool:
    """Whether the device multiplies bfloat16 itself (AVX512-BF16, AMX, CUDA from Ampere on)."""
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device_type != "cpu" or not CPU_INFO.exists():
        return False
    flags = set(CPU_INFO.read_text().split())
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16"})


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for libraries that draw from the global state
    torch.manual_seed(seed)


def set_threads(threads: int | None = None) -> int:
    """Use this many processor threads.

    By default OMP_NUM_THREADS where it is set, else the cores this process may run on.
    """
    wanted = threads or int(os.environ.get("OMP_NUM_THREADS") or _cores())
    torch.set_num_threads(wanted)
    return wanted


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

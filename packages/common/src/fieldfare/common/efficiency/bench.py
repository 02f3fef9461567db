# SPDX-License-Identifier: Apache-2.0
"""Measure how long a call takes and how much memory it needs; for benchmarks, never for tests."""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Bench:
    """Wall-clock seconds of one call, over several, and the memory one call adds.

    Attributes:
        median_s, iqr_s, min_s, max_s: of the timed calls; iqr_s is the 75th less the 25th
            percentile.
        peak_bytes: what one call adds at its peak to what was held before it. CUDA: bytes of
            tensors (torch.cuda.max_memory_allocated). CPU: growth of the resident memory of the
            whole process in one untimed call after the warm-up, with freed memory handed back
            before; it misses what libraries keep in pools of their own and counts what other
            threads do meanwhile. None where the system does not tell (it takes Linux).
        device: "cpu" or "cuda:0".
        threads: torch.get_num_threads().
        repeats: number of timed calls.
    """

    median_s: float
    iqr_s: float
    min_s: float
    max_s: float
    peak_bytes: int | None
    device: str
    threads: int
    repeats: int


@dataclass(frozen=True)
class BenchPair:
    """Two calls timed in turn.

    Attributes:
        a, b: each by itself.
        ratio: median over the pairs of a's seconds / b's seconds: how many times faster b is.
        ratio_iqr: 75th less 25th percentile of those ratios.
    """

    a: Bench
    b: Bench
    ratio: float
    ratio_iqr: float


def bench(
    function: Callable[..., object], *inputs: object, repeats: int = 10, warmup: int = 2
) -> Bench:
    """Time function(*inputs).

    Args:
        function: a module is called in inference mode, with its training flag as it stands; any
            other callable as it is.
        inputs: its arguments. The device is that of the first tensor among them, or of the
            module's parameters, else the CPU; on CUDA each call is waited for.
        repeats: timed calls, at least 2.
        warmup: calls before them.
    """
    _check(repeats, warmup)
    call, device = _prepare(function, inputs)
    for _ in range(warmup):
        _timed(call, device)
    peak = _peak_bytes(call, device)
    return _summary([_timed(call, device) for _ in range(repeats)], peak, device)


def bench_pair(
    a: Callable[..., object],
    b: Callable[..., object],
    *inputs: object,
    repeats: int = 10,
    warmup: int = 2,
) -> BenchPair:
    """Time two functions on the same inputs, in turn (A B A B ...), and compare pair by pair.

    A slow spell of the machine falls on both of a pair, so the ratio holds where the seconds do
    not. Arguments as for `bench`.
    """
    _check(repeats, warmup)
    call_a, device_a = _prepare(a, inputs)
    call_b, device_b = _prepare(b, inputs)
    for _ in range(warmup):
        _timed(call_a, device_a)
        _timed(call_b, device_b)
    peak_a, peak_b = _peak_bytes(call_a, device_a), _peak_bytes(call_b, device_b)
    pairs = [(_timed(call_a, device_a), _timed(call_b, device_b)) for _ in range(repeats)]
    ratios = [seconds_a / seconds_b for seconds_a, seconds_b in pairs]
    return BenchPair(
        _summary([pair[0] for pair in pairs], peak_a, device_a),
        _summary([pair[1] for pair in pairs], peak_b, device_b),
        median(ratios),
        _iqr(ratios),
    )


def _check(repeats: int, warmup: int) -> None:
    if repeats < 2:
        raise ValueError(f"repeats {repeats}: at least 2, to have a spread")
    if warmup < 0:
        raise ValueError(f"warmup {warmup}: at least 0")


def _prepare(
    function: Callable[..., object], inputs: Sequence[object]
) -> tuple[Callable[[], object], torch.device]:
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    if not isinstance(function, nn.Module):
        device = tensors[0].device if tensors else torch.device("cpu")
        return lambda: function(*inputs), device

    def infer() -> object:
        with torch.inference_mode():
            return function(*inputs)

    tensors.extend(function.parameters())
    return infer, tensors[0].device if tensors else torch.device("cpu")


def _timed(call: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not CLEAR_REFS.exists():
        return None
    try:
        _return_freed_memory()
        CLEAR_REFS.write_text("5")  # the peak resident size starts anew from the present one
        before = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - before)
    except OSError:
        return None


def _return_freed_memory() -> None:
    """Ask the C library to hand freed pages back, else a second call grows nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    lines = STATUS.read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) * 1024


def _iqr(values: Sequence[float]) -> float:
    low, _, high = quantiles(values, n=4, method="inclusive")
    return high - low


def _summary(seconds: Sequence[float], peak_bytes: int | None, device: torch.device) -> Bench:
    return Bench(
        median_s=median(seconds),
        iqr_s=_iqr(seconds),
        min_s=min(seconds),
        max_s=max(seconds),
        peak_bytes=peak_bytes,
        device=str(device),
        threads=torch.get_num_threads(),
        repeats=len(seconds),
    )

# SPDX-License-Identifier: Apache-2.0
"""The selective scan and its gradient as compiled loops for the CPU; float32, needs numba.

One channel of one sequence is stepped through at a time, LANES states in vector registers, nothing
but the inputs and outputs in memory. The work is cut into groups of channels, the same whatever the
batch and the number of threads, so that sums are always taken in one order.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor
from torch.nn import functional as F

from .selective_scan_torch import CHUNK

LANES = 16
"""States done at once: two AVX2 registers or one of AVX-512. Fewer are padded with zeros."""

GROUP = 64
"""Channels whose contributions to the gradients of B and C are summed before the others'."""

_FAST = {"contract", "reassoc", "nsz"}  # infinities and NaN stay what they are


def _slope(f: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.expm1(f) / f
    return found


# exp(f) = 1 + f q(f) on [-ln(2)/2, ln(2)/2]; exact at 0, or slow decays would drift. A call of the
# library's exp for each of the b d n l decays would take most of the time: it does not vectorise.
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5 = (
    np.polynomial.Chebyshev.interpolate(_slope, 5, [-math.log(2) / 2, math.log(2) / 2])
    .convert(kind=np.polynomial.Polynomial)
    .coef.astype(np.float32)
)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_PER_LN2 = np.float32(1 / math.log(2))
_LN2_HIGH = np.float32(0.693359375)  # few bits: its product with a whole number is exact
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_LOWEST, _HIGHEST = np.float32(-88.03), np.float32(89)


@intrinsic
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 that an int32's bits stand for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(fastmath=_FAST, inline="always")
def _exp(x: Any) -> Any:
    """exp(x); 0 below 2**-126, infinity from 2**128 on."""
    x = x if x > _LOWEST else _LOWEST
    x = x if x < _HIGHEST else _HIGHEST
    doublings = x * _PER_LN2
    whole = np.int32(doublings - _HALF if doublings < _ZERO else doublings + _HALF)
    count = np.float32(whole)
    f = (x - count * _LN2_HIGH) - count * _LN2_LOW
    slope = _Q0 + f * (_Q1 + f * (_Q2 + f * (_Q3 + f * (_Q4 + f * _Q5))))
    bits = np.int32((whole + np.int32(127)) << np.int32(23))
    return (_ONE + f * slope) * _float_of_bits(bits)  # type: ignore[call-arg]


@njit(fastmath=_FAST, cache=True, nogil=True, error_model="numpy")
def _forward_groups(u, step, a, b, c, y, states, first, last):  # type: ignore[no-untyped-def]
    """Fill y and states for groups first to last.

    Args:
        u, step, y: (B, D, L).
        a: (D, K, LANES), for K * LANES states.
        b, c: (B, L, K, LANES).
        states: (B, D, chunks + 1, K, LANES).
    """
    channels, registers = a.shape[:2]
    length, chunks = u.shape[2], states.shape[2] - 1
    groups = (channels + GROUP - 1) // GROUP
    h = np.empty(LANES, np.float32)
    for group in range(first, last):
        i = group // groups
        start = (group - i * groups) * GROUP
        for d in range(start, min(start + GROUP, channels)):
            y[i, d, :] = _ZERO
            for k in range(registers):
                h[:] = _ZERO
                rate = a[d, k]
                for chunk in range(chunks):
                    states[i, d, chunk, k, :] = h
                    for time in range(chunk * CHUNK, min(length, (chunk + 1) * CHUNK)):
                        size = step[i, d, time]
                        driven = size * u[i, d, time]
                        total = _ZERO
                        write, read = b[i, time, k], c[i, time, k]
                        for n in range(LANES):
                            new = _exp(size * rate[n]) * h[n] + driven * write[n]
                            h[n] = new
                            total += new * read[n]
                        y[i, d, time] += total
                states[i, d, chunks, k, :] = h


@njit(fastmath=_FAST, cache=True, nogil=True, error_model="numpy")
def _backward_groups(  # type: ignore[no-untyped-def]
    u, step, a, b, c, states, of_y, of_last, of_u, of_step, of_a, of_b, of_c, first, last
):
    """Fill the gradients for groups first to last.

    Args:
        u, step, a, b, c, states: as in `_forward_groups`.
        of_y, of_u, of_step: (B, D, L).
        of_last, of_a: (B, D, K, LANES).
        of_b, of_c: (B * groups, L, K, LANES), zeros.
    """
    channels, registers = a.shape[:2]
    length, chunks = u.shape[2], states.shape[2] - 1
    groups = (channels + GROUP - 1) // GROUP
    carried = np.empty(LANES, np.float32)
    rate_sum = np.empty(LANES, np.float32)
    decays = np.empty((CHUNK, LANES), np.float32)
    h = np.empty((CHUNK + 1, LANES), np.float32)
    for group in range(first, last):
        i = group // groups
        start = (group - i * groups) * GROUP
        for d in range(start, min(start + GROUP, channels)):
            of_u[i, d, :] = _ZERO
            of_step[i, d, :] = _ZERO
            for k in range(registers):
                rate_sum[:] = _ZERO
                carried[:] = of_last[i, d, k]
                rate = a[d, k]
                for chunk in range(chunks - 1, -1, -1):
                    begin = chunk * CHUNK
                    end = min(length, begin + CHUNK)
                    h[0, :] = states[i, d, chunk, k]
                    for time in range(begin, end):
                        size = step[i, d, time]
                        driven = size * u[i, d, time]
                        place = time - begin
                        write = b[i, time, k]
                        before, after, decay = h[place], h[place + 1], decays[place]
                        for n in range(LANES):
                            factor = _exp(size * rate[n])
                            decay[n] = factor
                            after[n] = factor * before[n] + driven * write[n]
                    for time in range(end - 1, begin - 1, -1):
                        size, value, wanted = step[i, d, time], u[i, d, time], of_y[i, d, time]
                        driven = size * value
                        place = time - begin
                        write, read = b[i, time, k], c[i, time, k]
                        write_sum, read_sum = of_b[group, time, k], of_c[group, time, k]
                        before, after, decay = h[place], h[place + 1], decays[place]
                        of_driven, of_size = _ZERO, _ZERO
                        for n in range(LANES):
                            of_state = carried[n] + wanted * read[n]
                            read_sum[n] += wanted * after[n]
                            write_sum[n] += of_state * driven
                            through = of_state * decay[n]
                            carried[n] = through
                            of_exponent = through * before[n]
                            of_driven += of_state * write[n]
                            of_size += of_exponent * rate[n]
                            rate_sum[n] += of_exponent * size
                        of_u[i, d, time] += of_driven * size
                        of_step[i, d, time] += of_driven * value + of_size
                of_a[i, d, k, :] = rate_sum


def forward(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Output (b, d, l), and the states (b, d, chunks + 1, n) before each chunk and at the end."""
    batch, channels, length = u.shape
    rates, write, read = _in_registers(a), _in_registers(b.mT), _in_registers(c.mT)
    y = u.new_empty(u.shape)
    states = u.new_empty(batch, channels, -(-length // CHUNK) + 1, *rates.shape[1:])
    _run(_forward_groups, batch, channels, u, step, rates, write, read, y, states)
    return y, states.flatten(3)[..., : a.shape[1]]


def backward(
    u: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    states: Tensor,
    of_y: Tensor,
    of_last: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of u, step, a, b and c."""
    batch, channels, length = u.shape
    width = a.shape[1]
    rates, write, read = _in_registers(a), _in_registers(b.mT), _in_registers(c.mT)
    of_u, of_step = u.new_empty(u.shape), u.new_empty(u.shape)
    of_a = u.new_empty(batch, *rates.shape)
    of_b = u.new_zeros(batch * -(-channels // GROUP), *write.shape[1:])
    of_c = torch.zeros_like(of_b)
    _run(
        _backward_groups, batch, channels, u, step, rates, write, read, _in_registers(states),
        of_y, _in_registers(of_last), of_u, of_step, of_a, of_b, of_c,
    )  # fmt: skip
    of_b, of_c = (
        t.view(batch, -1, length, t.shape[-2] * LANES).sum(dim=1)[..., :width].mT
        for t in (of_b, of_c)
    )
    return of_u, of_step, of_a.sum(dim=0).flatten(1)[:, :width], of_b, of_c


def _in_registers(x: Tensor) -> Tensor:
    """(..., n) -> (..., K, LANES), zeros behind n."""
    found: Tensor = F.pad(x, (0, -x.shape[-1] % LANES)).unflatten(-1, (-1, LANES))
    return found


def _run(groups_done: Callable[..., None], batch: int, channels: int, *tensors: Tensor) -> None:
    """Call a loop on all groups, in as many threads as torch uses."""
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
    groups = batch * -(-channels // GROUP)
    threads = min(torch.get_num_threads(), groups)
    if threads <= 1:
        groups_done(*arrays, 0, groups)
        return
    bounds = [groups * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        parts = [pool.submit(groups_done, *arrays, first, last) for first, last in pairwise(bounds)]
    for part in parts:
        part.result()

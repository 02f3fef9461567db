# SPDX-License-Identifier: Apache-2.0
"""The selective scan of Mamba: a linear recurrence whose coefficients depend on the input.

Gu and Dao 2023, *Mamba: Linear-Time Sequence Modeling with Selective State Spaces* (arXiv
2312.00752), eq. 2a with the discretisation of section 3.2 (zero-order hold for A, Euler for B):

    h_l = exp(delta_l A) h_{l-1} + delta_l u_l B_l,    y_l = C_l h_l + D u_l

The states, D x N numbers for each step, are never kept: the forward pass stores those between
chunks of CHUNK steps, and the backward pass computes each chunk's anew. Both step through the
recurrence itself; no products of decays are divided out, so nothing overflows however stiff A is.

On a CPU in float32 both passes are one compiled loop each (`selective_scan_cpu`) where numba is
installed; on CUDA the kernel of the `mamba-ssm` package is taken where it is; else plain torch.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = 32
"""Steps between stored states; the states and decays of a chunk (4 KB) fit the L1 cache."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    """Scan a batch of sequences; for batch b, channels d, states n and steps l.

    The same inputs give the same result, whatever the number of threads. In a batch of other size a
    sequence's result differs by no more than torch's rounding of softplus and silu.

    Args:
        u: (b, d, l), input; float32, bfloat16 or float16 (computed in float32) or float64.
        delta: (b, d, l), step sizes before bias and softplus; positive after them.
        A: (d, n), negative for a recurrence that forgets.
        B: (b, n, l).
        C: (b, n, l).
        D: (d,), weight of the direct path.
        z: (b, d, l), the output is multiplied by silu(z).
        delta_bias: (d,), added to delta.
        delta_softplus: apply softplus to delta (after the bias).
        return_last_state: also give the state after the last step.

    Returns:
        (b, d, l) of u's type; with `return_last_state` the pair of it and (b, d, n), float32
        (float64 for float64).

    Raises:
        ValueError: shapes that do not fit; the message names them.
    """
    _check(u, delta, A, B, C)
    if u.is_cuda and u.dtype != torch.float64 and (kernel := _mamba_ssm()) is not None:
        return kernel(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, step = u.to(wide), delta.to(wide)
    if delta_bias is not None:
        step = step + delta_bias.to(wide)[:, None]
    if delta_softplus:
        step = F.softplus(step)
    y, last = _scan(x, step, A.to(wide), B.to(wide), C.to(wide))
    if D is not None:
        y = torch.addcmul(y, x, D.to(wide)[:, None])
    if z is not None:
        y = y * F.silu(z.to(wide))
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


def _check(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    fits = u.ndim == 3 and a.ndim == 2 and delta.shape == u.shape and a.shape[0] == u.shape[1]
    if not fits or not b.shape == c.shape == (u.shape[0], a.shape[1], u.shape[2]):
        shapes = ", ".join(str(list(t.shape)) for t in (u, delta, a, b, c))
        raise ValueError(
            "u and delta must be (b, d, l), A (d, n), B and C (b, n, l); got " + shapes
        )


@cache
def _mamba_ssm() -> Callable[..., Any] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return selective_scan_fn


@cache
def _compiled() -> Any:
    """The module of compiled loops, None without numba."""
    try:
        from . import selective_scan_cpu
    except ImportError:
        return None
    return selective_scan_cpu


def _scan(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """(b, d, l) without the direct path and the gate, and the last state (b, d, n)."""
    if torch.compiler.is_compiling():
        return _traced(u, step, a, b, c)
    y, last = _Scan.apply(u, step, a, b, c)
    return y, last


class _Scan(torch.autograd.Function):
    """Keeps its inputs and the states between chunks."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        compiled = _compiled() if u.device.type == "cpu" and u.dtype == torch.float32 else None
        ctx.backward_pass = _backward if compiled is None else compiled.backward
        y, states = (_forward if compiled is None else compiled.forward)(u, step, a, b, c)
        ctx.save_for_backward(u, step, a, b, c, states)
        return y, states[:, :, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor, of_last: Tensor) -> tuple[Tensor, ...]:
        return ctx.backward_pass(*ctx.saved_tensors, of_y, of_last)


def _forward(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Output (b, d, l), and the states (b, d, chunks + 1, n) before each chunk and at the end."""
    state = u.new_zeros(u.shape[0], *a.shape)
    outputs, kept = [], []
    driven = step * u
    for time in range(u.shape[2]):
        if time % CHUNK == 0:
            kept.append(state)
        decay = torch.exp(step[:, :, time, None] * a)
        state = decay * state + driven[:, :, time, None] * b[:, None, :, time]
        outputs.append((state @ c[:, :, time, None])[..., 0])
    kept.append(state)
    return torch.stack(outputs, dim=2), torch.stack(kept, dim=2)


def _traced(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """What tracing sees: some sqrt(l) rows of the sequence side by side, twice.

    A graph of the single steps takes minutes to export. Here the first time tells what a row adds
    to the state before it and what it leaves of that; the second begins with the state itself.
    """
    length = u.shape[2]
    columns = math.isqrt(length - 1) + 1
    rows = -(-length // columns)

    def lay(x: Tensor) -> Tensor:
        """(b, e, l) -> (columns, rows, b, e), with steps of length 0 at the end."""
        filled = F.pad(x, (0, rows * columns - length))
        return filled.unflatten(2, (rows, columns)).permute(3, 2, 0, 1)

    # Channels last: runtimes are slow where what is broadcast lies along the short axis of states.
    rate = a.mT
    steps, writes, reads = lay(step)[..., None, :], lay(b)[..., None], lay(c)[..., None, :]
    decays = [torch.exp(size * rate) for size in steps.unbind()]
    inflow = steps * lay(u)[..., None, :]
    driven = [x * write for x, write in zip(inflow.unbind(), writes.unbind(), strict=True)]
    added = torch.zeros_like(driven[0])
    for decay, new in zip(decays, driven, strict=True):
        added = decay * added + new
    left = torch.exp(steps.sum(dim=0) * rate)
    carried = torch.zeros_like(added[0])
    before = []
    for share, new in zip(left.unbind(), added.unbind(), strict=True):
        before.append(carried)
        carried = share * carried + new
    state = torch.stack(before)
    outputs = []
    for decay, new, read in zip(decays, driven, reads.unbind(), strict=True):
        state = decay * state + new
        outputs.append((read @ state)[..., 0, :])
    y = torch.stack(outputs)  # (columns, rows, b, d)
    return y.permute(2, 3, 1, 0).flatten(2)[..., :length], carried.mT


def _backward(
    u: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    states: Tensor,
    of_y: Tensor,
    of_last: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of u, step, a, b and c, chunk by chunk from the end."""
    of_u, of_step = torch.empty_like(u), torch.empty_like(u)
    of_a, of_b, of_c = torch.zeros_like(a), torch.empty_like(b), torch.empty_like(c)
    driven = step * u
    carried = of_last  # gradient of the state that the next step reads
    for chunk in reversed(range(states.shape[2] - 1)):
        times = range(chunk * CHUNK, min((chunk + 1) * CHUNK, u.shape[2]))
        before = [states[:, :, chunk]]
        decays = []
        for time in times:
            decays.append(torch.exp(step[:, :, time, None] * a))
            new = driven[:, :, time, None] * b[:, None, :, time]
            before.append(decays[-1] * before[-1] + new)
        for place in reversed(range(len(times))):
            time = times[place]
            of_state = carried + of_y[:, :, time, None] * c[:, None, :, time]
            of_c[:, :, time] = (of_y[:, :, time, None] * before[place + 1]).sum(dim=1)
            of_b[:, :, time] = (of_state * driven[:, :, time, None]).sum(dim=1)
            carried = of_state * decays[place]
            of_exponent = carried * before[place]
            of_driven = (of_state * b[:, None, :, time]).sum(dim=2)
            of_u[:, :, time] = of_driven * step[:, :, time]
            of_step[:, :, time] = of_driven * u[:, :, time] + (of_exponent * a).sum(dim=2)
            of_a += (of_exponent * step[:, :, time, None]).sum(dim=0)
    return of_u, of_step, of_a, of_b, of_c

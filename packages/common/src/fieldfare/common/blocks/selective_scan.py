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

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .selective_scan_torch import backward, forward, traced


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
    found: Callable[..., Any] | None = selective_scan_fn
    return found


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
        return traced(u, step, a, b, c)
    y, last = _Scan.apply(u, step, a, b, c)
    return y, last


class _Scan(torch.autograd.Function):
    """Keeps its inputs and the states between chunks."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        compiled = _compiled() if u.device.type == "cpu" and u.dtype == torch.float32 else None
        ctx.backward_pass = backward if compiled is None else compiled.backward
        y, states = (forward if compiled is None else compiled.forward)(u, step, a, b, c)
        ctx.save_for_backward(u, step, a, b, c, states)
        return y, states[:, :, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor, of_last: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = ctx.backward_pass(*ctx.saved_tensors, of_y, of_last)
        return found

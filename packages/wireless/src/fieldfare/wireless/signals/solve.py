# SPDX-License-Identifier: Apache-2.0
"""Hermitian positive definite systems, batched: Cholesky, or conjugate gradients (no inverse).

Both scale the matrix to a unit diagonal first (Jacobi). Path loss spreads the users' gains over
many decades, and that spread, not the geometry of the channels, is most of the condition number.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Solver = Literal["cholesky", "cg"]
SOLVERS: tuple[Solver, ...] = ("cholesky", "cg")
CG_TOLERANCE = 1e-3


class CgResult(NamedTuple):
    """Solution (..., K, R), iterations taken, and relative residuals (..., R)."""

    X: Tensor
    iterations: int
    residual: Tensor


def solve_hermitian(
    A: Tensor,
    B: Tensor,
    *,
    solver: Solver = "cholesky",
    tolerance: float = CG_TOLERANCE,
    max_iterations: int | None = None,
) -> Tensor:
    """X of A X = B; differentiable.

    Args:
        A: (..., K, K) complex or real, Hermitian positive definite.
        B: (..., K, R), right-hand sides.
        solver: "cholesky", or "cg" for conjugate gradients.
        tolerance, max_iterations: as for `conjugate_gradients`; Cholesky has no use for them.

    Returns:
        (..., K, R).

    Raises:
        torch.linalg.LinAlgError: Cholesky met a matrix that is not positive definite.
        ValueError: no such solver.
    """
    if solver == "cg":
        return conjugate_gradients(A, B, tolerance=tolerance, max_iterations=max_iterations).X
    if solver != "cholesky":
        raise ValueError(f"solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    scaled, scale = _unit_diagonal(A)
    return scale * torch.cholesky_solve(scale * B, torch.linalg.cholesky(scaled))


def conjugate_gradients(
    A: Tensor, B: Tensor, *, tolerance: float = CG_TOLERANCE, max_iterations: int | None = None
) -> CgResult:
    """Solve A X = B by conjugate gradients, every column of every matrix on its own.

    The stop looks at the residual, not at a fixed small count: at high load and signal-to-noise
    ratio 8 iterations for K = 16 lose a fifth of the sum rate.

    Args:
        A: (..., K, K) complex or real, Hermitian positive definite.
        B: (..., K, R).
        tolerance: a column stops once ||r|| <= tolerance ||b|| (of the scaled system).
        max_iterations: 2 K by default: K suffice in exact arithmetic.

    Returns:
        The solution, differentiable through the unrolled loop.

    Source: Hestenes and Stiefel 1952 (doi 10.6028/jres.049.044).
    """
    scaled, scale = _unit_diagonal(A)
    B = scale * B
    X = torch.zeros_like(B)
    residual = direction = B
    squared = _column_power(residual)
    goal = tolerance**2 * squared
    limit = 2 * A.shape[-1] if max_iterations is None else max_iterations
    iterations = 0
    active = squared > goal
    while iterations < limit and bool(active.any()):
        iterations += 1
        image = scaled @ direction
        # A finished column keeps step 0: its curvature may be 0, and 0/0 would poison gradients.
        curvature = (direction.conj() * image).real.sum(-2, keepdim=True)
        step = torch.where(active, squared / torch.where(active, curvature, 1.0), 0.0)
        X = X + step * direction
        residual = residual - step * image
        previous, squared = squared, _column_power(residual)
        turn = torch.where(active, squared / torch.where(active, previous, 1.0), 0.0)
        direction = residual + turn * direction
        active = active & (squared > goal)
    norm = _column_power(B)
    relative = (squared / torch.where(norm > 0, norm, 1.0)).sqrt().squeeze(-2)
    return CgResult(scale * X, iterations, relative.detach())


def _unit_diagonal(A: Tensor) -> tuple[Tensor, Tensor]:
    """S A S with a diagonal of ones, and the column s of S's diagonal, (..., K, 1) real."""
    scale = A.diagonal(dim1=-2, dim2=-1).real.rsqrt().unsqueeze(-1)
    return scale * A * scale.mT, scale


def _column_power(B: Tensor) -> Tensor:
    return B.abs().square().sum(-2, keepdim=True)

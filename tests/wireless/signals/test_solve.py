# SPDX-License-Identifier: Apache-2.0
"""Hermitian systems: conjugate gradients and Cholesky."""

import pytest
import torch

from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.signals.solve import conjugate_gradients, solve_hermitian


def system(
    batch: int, size: int, dtype: torch.dtype = torch.complex128
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    H = rayleigh((batch, size, size), generator, dtype)
    A = H @ H.mH + 0.1 * torch.eye(size, dtype=dtype)
    return A, rayleigh((batch, size, 3), generator, dtype)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_solution_solves(solver: str) -> None:
    A, B = system(6, 8)
    X = solve_hermitian(A, B, solver=solver, tolerance=1e-12)
    torch.testing.assert_close(A @ X, B)


def test_conjugate_gradients_stop_at_the_residual_asked_for() -> None:
    A, B = system(6, 16)
    loose, tight = (conjugate_gradients(A, B, tolerance=t) for t in (1e-1, 1e-8))
    assert loose.iterations < tight.iterations <= 32
    assert (loose.residual <= 1e-1).all()
    assert (tight.residual <= 1e-8).all()
    assert conjugate_gradients(A, B, tolerance=0.0, max_iterations=5).iterations == 5


def test_scaling_takes_path_loss_out_of_the_iterations() -> None:
    A, B = system(6, 8)
    scale = torch.logspace(0, -8, 8, dtype=torch.float64)
    spread = conjugate_gradients(scale[:, None] * A * scale, scale[:, None] * B, tolerance=1e-6)
    assert spread.iterations == conjugate_gradients(A, B, tolerance=1e-6).iterations


def test_zero_right_hand_sides_give_zero() -> None:
    A, B = system(2, 4)
    B[0] = 0
    found = conjugate_gradients(A, B, tolerance=1e-10)
    assert (found.X[0] == 0).all()
    torch.testing.assert_close(A @ found.X, B)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_gradients(solver: str) -> None:
    H, B = rayleigh((4, 4), torch.Generator().manual_seed(0), torch.complex128), system(1, 4)[1][0]

    def solve(H: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        A = H @ H.mH + torch.eye(4, dtype=H.dtype)
        return torch.view_as_real(solve_hermitian(A, B, solver=solver, tolerance=1e-14))

    assert torch.autograd.gradcheck(solve, (H.requires_grad_(), B.requires_grad_()))


def test_gradients_are_finite_where_a_column_needs_no_step() -> None:
    A, B = system(1, 4)
    B[..., 0] = 0
    A.requires_grad_()
    conjugate_gradients(A, B).X.abs().square().sum().backward()
    assert torch.isfinite(torch.view_as_real(A.grad)).all()


def test_unknown_solver() -> None:
    with pytest.raises(ValueError, match="choose one of cholesky, cg"):
        solve_hermitian(*system(1, 2), solver="lu")

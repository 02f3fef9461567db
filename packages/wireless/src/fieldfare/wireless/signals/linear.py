# SPDX-License-Identifier: Apache-2.0
"""Closed-form linear precoders: maximum ratio, zero forcing, regularised zero forcing (MMSE).

Everywhere H is (..., K, N) complex, row k the channel of user k in y_k = H[k] W s + n_k; W is
(..., N, K) with total power ||W||_F^2 = `power`. Power and noise share the unit of |H|^2.
"""

from typing import Literal

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from .rates import Level, expand_level, squared_magnitude
from .solve import CG_TOLERANCE, Solver, solve_hermitian

Normalisation = Literal["column", "total"]
"""Every column scaled to power / K, or all columns by one factor."""


def gram(H: Tensor) -> Tensor:
    """H H^H, (..., K, K)."""
    return H @ H.mH


def mrt(H: Tensor, power: Level = 1.0, *, normalisation: Normalisation = "column") -> Tensor:
    """Maximum-ratio transmission, W ~ H^H (conjugate beamforming)."""
    return normalise(H.mH, power, normalisation)


def zf(H: Tensor, power: Level = 1.0, *, normalisation: Normalisation = "column") -> Tensor:
    """Zero forcing, W ~ H^H (H H^H)^-1.

    Found by the QR decomposition of H^H, whose error grows with the condition number of H, not
    with its square as through the Gram matrix.

    Raises:
        InputError: more users than antennas, or linearly dependent channels.
    """
    return normalise(_pseudo_inverse(H), power, normalisation)


def rzf(
    H: Tensor,
    power: Level = 1.0,
    noise_power: Level = 1.0,
    *,
    regularisation: Level | None = None,
    normalisation: Normalisation = "column",
    solver: Solver = "cholesky",
    tolerance: float = CG_TOLERANCE,
    max_iterations: int | None = None,
) -> Tensor:
    """Regularised zero forcing, W ~ H^H (H H^H + alpha I)^-1.

    Args:
        H: (..., K, N) complex; any K and N.
        power: total transmit power.
        noise_power: of every user.
        regularisation: alpha; by default K noise_power / power, the MMSE precoder.
        normalisation: "column" or "total".
        solver, tolerance, max_iterations: as for `solve_hermitian`.

    Source: Peel, Hochwald, Swindlehurst 2005 (doi 10.1109/TCOMM.2004.840638).
    """
    users = H.shape[-2]
    eye = torch.eye(users, dtype=H.dtype, device=H.device)
    if regularisation is None:
        alpha = users * expand_level(noise_power, H, 2) / expand_level(power, H, 2)
    else:
        alpha = expand_level(regularisation, H, 2)
    A, B = torch.broadcast_tensors(gram(H) + alpha * eye, eye)
    X = solve_hermitian(A, B, solver=solver, tolerance=tolerance, max_iterations=max_iterations)
    return normalise(H.mH @ X, power, normalisation)


def normalise(W: Tensor, power: Level, normalisation: Normalisation = "column") -> Tensor:
    """Scale W to the total power: each column to power / K, or all by one factor.

    A column of zeros stays zero.
    """
    total = expand_level(power, W, 2)
    if normalisation == "column":
        return unit_columns(W) * (total / W.shape[-1]).sqrt()
    if normalisation == "total":
        return W * (total / _nonzero(squared_magnitude(W).sum((-2, -1), keepdim=True))).sqrt()
    raise ValueError(f"normalisation {normalisation!r}: choose column or total")


def unit_columns(W: Tensor) -> Tensor:
    """Every column of W scaled to length 1; zeros stay zero."""
    return W * _nonzero(squared_magnitude(W).sum(-2, keepdim=True)).rsqrt()


def limit_antenna_power(W: Tensor, antenna_power: Level) -> Tensor:
    """Scale W down by one factor until no antenna transmits more than `antenna_power`.

    One factor keeps the directions, so what is zero-forced stays so; only the hardest working
    antenna transmits at its limit, and a W within the limits is returned as it is.

    Args:
        W: (..., N, K) complex.
        antenna_power: limit of each antenna, broadcastable to (...).
    """
    highest = squared_magnitude(W).sum(-1).amax(-1)[..., None, None]
    return W * (expand_level(antenna_power, W, 2) / _nonzero(highest)).clamp(max=1).sqrt()


def _pseudo_inverse(H: Tensor) -> Tensor:
    users, antennas = H.shape[-2:]
    if users > antennas:
        raise InputError(
            f"zero forcing: {users} users need at least as many antennas, not {antennas}; use rzf"
        )
    Q, R = torch.linalg.qr(H.mH)
    diagonal = R.diagonal(dim1=-2, dim2=-1).abs()
    length = H.abs().square().sum(-1).sqrt()
    dependent = (diagonal <= antennas * torch.finfo(diagonal.dtype).eps * length).any(-1)
    if bool(dependent.any()):
        index = dependent.flatten().nonzero()[0].item()
        raise InputError(
            f"zero forcing: the users' channels of matrix {index} are linearly dependent; use rzf"
        )
    found: Tensor = torch.linalg.solve_triangular(R.mH, Q, upper=False, left=False)
    return found


def _nonzero(power: Tensor) -> Tensor:
    return torch.where(power > 0, power, 1.0)

# SPDX-License-Identifier: Apache-2.0
"""Users with several antennas and streams, reduced to the one-row-a-user form of this package.

A stream d of user k, received with the unit vector u_kd, sees the effective row u_kd^H H_k; all
K D rows together are a channel (..., K D, N) for every precoder here. Other streams, the user's
own included, count as interference: a linear receiver, without successive cancellation.
"""

import torch
from torch import Tensor

from .linear import rzf, unit_columns
from .rates import Level, expand_level
from .wmmse import refine


def svd_receivers(H: Tensor, streams: int) -> Tensor:
    """The strongest left singular vectors of every user's channel.

    Args:
        H: (..., K, M, N) complex, M antennas a user: y_k = H_k x + n_k.
        streams: D, 1 to min(M, N).

    Returns:
        (..., K, M, D), unit columns.

    Raises:
        ValueError: more streams than a user's channel has singular values.
    """
    _check_streams(H, streams)
    found: Tensor = torch.linalg.svd(H, full_matrices=False).U[..., :streams]
    return found


def mmse_receivers(H: Tensor, W: Tensor, noise_power: Level) -> Tensor:
    """The receiver of highest SINR for every stream, given the precoder.

    Args:
        H: (..., K, M, N) complex.
        W: (..., N, K D) complex, the columns of a user side by side.
        noise_power: of every receive antenna, a number or broadcastable to (...).

    Returns:
        (..., K, M, D), unit columns.
    """
    users, antennas = H.shape[-3:-1]
    received = H @ W.unsqueeze(-3)
    eye = torch.eye(antennas, dtype=H.dtype, device=H.device)
    covariance = received @ received.mH + expand_level(noise_power, H, 3) * eye
    own = received.unflatten(-1, (users, -1)).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
    return unit_columns(torch.linalg.solve(covariance, own))


def effective_rows(H: Tensor, receivers: Tensor) -> Tensor:
    """Rows u_kd^H H_k, (..., K D, N), of H (..., K, M, N) and receivers (..., K, M, D)."""
    return (receivers.mH @ H).flatten(-3, -2)


def wmmse_streams(
    H: Tensor,
    streams: int,
    power: Level = 1.0,
    noise_power: Level = 1.0,
    *,
    weights: Tensor | None = None,
    iterations: int = 100,
) -> tuple[Tensor, Tensor]:
    """WMMSE for users with several antennas: receivers and precoder in turns.

    The weighted sum of the streams' rates never falls from one turn to the next.

    Args:
        H: (..., K, M, N) complex.
        streams: D of every user, 1 to min(M, N).
        power: total transmit power.
        noise_power: of every receive antenna.
        weights: of the users, broadcastable to (..., K).
        iterations: turns.

    Returns:
        W (..., N, K D) of total power `power`, the columns of a user side by side, and receivers
        (..., K, M, D). `rate(effective_rows(H, receivers), W, noise_power)` gives the streams'
        rates (..., K D).

    Raises:
        ValueError: as `svd_receivers`.

    Source: Shi, Razaviyayn, Luo, He 2011 (doi 10.1109/TSP.2011.2147784).
    """
    if weights is not None:
        weights = weights.repeat_interleave(streams, -1)
    with torch.no_grad():
        receivers = svd_receivers(H, streams)
        W = rzf(effective_rows(H, receivers), power, noise_power)
        for _ in range(iterations):
            rows = effective_rows(H, receivers)
            W = refine(rows, W, power, noise_power, weights=weights)
            receivers = mmse_receivers(H, W, noise_power)
    return W, receivers


def _check_streams(H: Tensor, streams: int) -> None:
    if not 1 <= streams <= min(H.shape[-2:]):
        raise ValueError(
            f"streams {streams}: a channel of {H.shape[-2]} x {H.shape[-1]} antennas carries"
            f" 1 to {min(H.shape[-2:])}"
        )

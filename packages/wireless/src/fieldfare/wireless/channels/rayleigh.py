# SPDX-License-Identifier: Apache-2.0
"""Rayleigh fading: independent, correlated over the array, with path loss.

Every draw takes a `torch.Generator`; the same seed gives the same channel. All channels are
(..., K, N), row k the channel of user k as used in y_k = H[k] W s, of unit mean gain unless scaled.
"""

import math

import torch
from torch import Tensor


def rayleigh(
    size: tuple[int, ...],
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.complex64,
) -> Tensor:
    """Independent entries CN(0, 1) of the given size."""
    return torch.randn(size, dtype=dtype, generator=generator)


def correlated_rayleigh(
    correlation: Tensor, size: tuple[int, ...] = (), generator: torch.Generator | None = None
) -> Tensor:
    """Rows h ~ CN(0, R), one for every R.

    Args:
        correlation: (..., K, N, N) complex, R = E[h^T conj(h)] of every user (h a row), Hermitian
            positive semidefinite, with a diagonal of ones for unit mean gain.
        size: further leading dimensions: draws that share the correlations.
        generator: draws the fading.

    Returns:
        (*size, ..., K, N).
    """
    values, vectors = torch.linalg.eigh(correlation)
    # Not by Cholesky: the rank is often below N.
    root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
    white = rayleigh((*size, *correlation.shape[:-1]), generator, correlation.dtype)
    return torch.matmul(root, white.unsqueeze(-1)).squeeze(-1)


def exponential_correlation(antennas: int, magnitude: Tensor, phase: Tensor) -> Tensor:
    """R_mn = (magnitude e^{j phase})^{m-n} for m >= n, Hermitian, of a uniform linear array.

    Args:
        antennas: N.
        magnitude: (...), correlation of neighbouring antennas, 0 up to but excluding 1.
        phase: (...), radians; pi sin(angle) for half a wavelength of spacing.

    Returns:
        (..., N, N) complex.

    Source: Loyka 2001 (doi 10.1109/4234.951380).
    """
    index = torch.arange(antennas, device=magnitude.device)
    lag = index.unsqueeze(-1) - index
    size = magnitude[..., None, None] ** lag.abs()
    return torch.polar(size, phase[..., None, None] * lag)


def one_ring_correlation(
    antennas: int, angle: Tensor, spread: Tensor, *, spacing: float = 0.5, points: int = 64
) -> Tensor:
    """Scatterers on a ring around the user, seen from a uniform linear array.

    R_mn is the mean of e^{j 2 pi spacing (m-n) sin(theta)}, theta uniform over angle +- spread.

    Args:
        antennas: N.
        angle: (...), of the user from broadside, radians.
        spread: (...), half-width of the angles of arrival, radians.
        spacing: between antennas, in wavelengths.
        points: of the midpoint rule, at least; more are taken for large arrays.

    Returns:
        (..., N, N) complex, diagonal of ones.

    Source: Adhikary, Nam, Ahn, Caire, Joint Spatial Division and Multiplexing, IEEE Trans. Inf.
    Theory 59(10), 2013.
    """
    points = max(points, 2 * antennas)
    offset = (torch.arange(points, dtype=angle.dtype, device=angle.device) + 0.5) * 2 / points - 1
    theta = angle.unsqueeze(-1) + spread.unsqueeze(-1) * offset
    index = torch.arange(antennas, dtype=angle.dtype, device=angle.device)
    phase = 2 * math.pi * spacing * theta.sin().unsqueeze(-1) * index  # (..., points, N)
    steering = torch.polar(torch.ones_like(phase), phase)
    return steering.mT @ steering.conj() / points


def path_gains(
    size: tuple[int, ...],
    generator: torch.Generator | None = None,
    *,
    exponent: float = 3.67,
    min_distance: float = 0.1,
    shadowing_db: float = 4.0,
) -> Tensor:
    """Gains of users dropped uniformly over a disc, relative to a user at its edge.

    Args:
        size: (..., K).
        generator: draws positions and shadowing.
        exponent: of the path loss; 3.67 as in 3GPP's urban microcell without line of sight.
        min_distance: users keep this share of the radius away from the antenna.
        shadowing_db: standard deviation of the log-normal shadowing.

    Returns:
        (..., K), linear, median 1 at the edge. Multiply rows of H by the square root.
    """
    area = torch.rand(size, generator=generator)
    distance = (min_distance**2 + area * (1 - min_distance**2)).sqrt()
    shadowing = shadowing_db * torch.randn(size, generator=generator)
    return 10 ** (shadowing / 10) * distance**-exponent

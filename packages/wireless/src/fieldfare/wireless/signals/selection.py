# SPDX-License-Identifier: Apache-2.0
"""Which users to serve: greedy selection, and any precoder on the users of a selection.

With more users than antennas, users at one place or channels of low rank, serving all of them
costs more rate than it gives. Greedy selection starts from nobody and adds the user that raises
the weighted sum rate most, until none does. The rates are those of the dual uplink with equal
powers and MMSE receivers, for which one user more needs no further inverse. On 500 channels of five
kinds, each at six SNR from -20 to 60 dB, that lost at most 0.3 % of the rate of selection by the
downlink's own rates under RZF, and nothing on average.

Source: greedy selection: Dimic, Sidiropoulos 2005 (doi 10.1109/TSP.2005.855401), there with zero
forcing; duality: Viswanath, Tse 2003 (doi 10.1109/TIT.2003.814483).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .linear import gram, rzf
from .rates import Level, expand_level, squared_magnitude

CHUNK = 2**22
"""Complex numbers of the largest tensor at a time."""

Precode = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(H, power, noise_power, weights or None) to W and a flag of each channel."""


def greedy_users(
    H: Tensor, power: Level = 1.0, noise_power: Level = 1.0, weights: Tensor | None = None
) -> Tensor:
    """The users that greedy selection serves.

    Args:
        H: (B, K, N) complex; computed in double precision.
        power, noise_power: numbers or (B,).
        weights: (B, K), not negative.

    Returns:
        (B, K) bool. Users without channel or weight are never chosen.
    """
    H = H.to(torch.complex128)
    A = gram(H) * (expand_level(power, H, 2) / expand_level(noise_power, H, 2))
    share = torch.ones_like(A.real[..., 0]) if weights is None else weights.to(A.real.dtype)
    size = max(1, CHUNK // A.shape[-1] ** 2)
    parts = [_greedy(*part) for part in zip(A.split(size), share.split(size), strict=True)]
    return torch.cat(parts)


def greedy_rzf(
    H: Tensor,
    power: Tensor,
    noise_power: Tensor,
    weights: Tensor | None = None,
    *,
    served: Tensor | None = None,
) -> Tensor:
    """RZF for the served users alone, (B, N, K), by default those of `greedy_users`.

    Args:
        H: (B, K, N) complex; power, noise_power: (B,); weights: (B, K) or None.
        served: (B, K) bool.
    """

    def precode(
        H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        W = rzf(H.to(torch.complex128), power, noise_power).to(H.dtype)
        return W, torch.zeros(len(H), dtype=torch.bool, device=H.device)

    if served is None:
        served = greedy_users(H, power, noise_power, weights)
    return precode_selected(precode, served, H, power, noise_power, weights)[0]


def precode_selected(
    precode: Precode,
    served: Tensor,
    H: Tensor,
    power: Tensor,
    noise_power: Tensor,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """A precoder on the served users of every channel; the others get no power.

    Args:
        precode: see `Precode`; called once for every number of served users.
        served: (B, K) bool.
        H: (B, K, N); power, noise_power: (B,); weights: (B, K) or None.

    Returns:
        W (B, N, K) with columns of zeros for users not served, and flags (B,), False where nobody
        is served.
    """
    if bool(served.all()):
        return precode(H, power, noise_power, weights)
    W = H.new_zeros(len(H), H.shape[2], H.shape[1])
    flags = torch.zeros(len(H), dtype=torch.bool, device=H.device)
    for rows, users in _by_count(served):
        pick = (rows.unsqueeze(-1), users)
        share = None if weights is None else weights[pick]
        part, flag = precode(H[pick], power[rows], noise_power[rows], share)
        columns = users.unsqueeze(-2).expand(-1, H.shape[2], -1)
        W[rows] = W[rows].scatter(-1, columns, part)
        flags[rows] = flag
    return W, flags


def _by_count(served: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Channels (n,) with equally many served users, and these users (n, count), ascending."""
    counts = served.sum(-1)
    for count in counts.unique().tolist():
        if count:
            rows = (counts == count).nonzero()[:, 0]
            yield rows, served[rows].nonzero()[:, 1].reshape(-1, count)


def _greedy(A: Tensor, weights: Tensor) -> Tensor:
    """Selection for A = H H^H P / s2 (B, K, K) and weights (B, K)."""
    users = A.shape[-1]
    served = torch.zeros(A.shape[:2], dtype=torch.bool, device=A.device)
    chosen = torch.zeros(len(A), 0, dtype=torch.int64, device=A.device)
    possible = (A.diagonal(dim1=-2, dim2=-1).real > 0) & (weights > 0)
    value = A.real.new_zeros(len(A))
    running = torch.arange(len(A), device=A.device)
    for _ in range(users):
        rates = _rates_with_one_more(A, weights, chosen)
        rates = torch.where(possible, rates, -torch.inf)
        best, user = rates.max(-1)
        more = best > value
        running, A, weights, possible = running[more], A[more], weights[more], possible[more]
        if not len(running):
            break
        value, user = best[more], user[more]
        served[running, user] = True
        possible = possible.scatter(-1, user.unsqueeze(-1), value=False)
        chosen = torch.cat([chosen[more], user.unsqueeze(-1)], -1)
    return served


def _rates_with_one_more(A: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Weighted sum rate of the dual uplink for the chosen users (B, m) and one more each, (B, K).

    With a = m + 1, every user having the power P / a, and X = (A_S / a + I)^-1, user k of S has the
    rate -log2 X_kk behind an MMSE receiver. One more user c borders X by v = X A_Sc / a, and the
    diagonal becomes X_kk + |v_k|^2 / r and 1 / r with the pivot r = A_cc / a + 1 - A_cS v / a.
    """
    a = chosen.shape[1] + 1
    alone = A.diagonal(dim1=-2, dim2=-1).real / a + 1
    if a == 1:
        return weights * alone.log2()
    cross = A.gather(1, chosen.unsqueeze(-1).expand(-1, -1, A.shape[-1])) / a  # (B, m, K)
    inner = cross.gather(2, chosen.unsqueeze(1).expand(-1, a - 1, -1))
    X = torch.linalg.inv(inner + torch.eye(a - 1, dtype=A.dtype, device=A.device))
    v = X @ cross
    # At least 1 in exact arithmetic; users that are chosen already end below in rounding.
    pivot = (alone - (cross.conj() * v).real.sum(1)).clamp_min(1)
    kept = X.diagonal(dim1=-2, dim2=-1).real.unsqueeze(-1)
    kept = kept + squared_magnitude(v) / pivot.unsqueeze(1)
    own = weights.gather(1, chosen).unsqueeze(-1)
    rates: Tensor = weights * pivot.log2() - (own * kept.log2()).sum(1)
    return rates

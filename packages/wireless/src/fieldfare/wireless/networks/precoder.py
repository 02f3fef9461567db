# SPDX-License-Identifier: Apache-2.0
"""ICGNN precoding: one network for any number of users and antennas.

Two positive numbers of every user say all: its share of virtual uplink power, and the side power of
its column. WMMSE is a map of these numbers to themselves. A layer takes one such step and the
network corrects it, so that a few layers end where WMMSE needs a hundred steps, or higher: WMMSE
stops at the local optimum that RZF leads to. Untrained, the network is WMMSE with that many steps.

Source: the idea, Sun et al. (arXiv 2408.17252, abstract); WMMSE, Shi et al. 2011 (doi
10.1109/TSP.2011.2147784); features and network are this package's own design.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Unpack, cast

import torch
from torch import Tensor, nn

from ..signals.linear import limit_antenna_power, normalise
from ..signals.rates import Level, expand_level
from ..signals.solve import Solver
from .graph import FEATURES, Step, features, wmmse_step
from .guard import best_of
from .layer import Pool, UserLayer, pool_all, pool_of
from .structure import (
    CG_TOLERANCE,
    LEAST,
    Cell,
    Response,
    Solving,
    View,
    directions,
    equal_shares,
    log_share,
    look,
    observe,
    respond,
)

MARGIN = 1e-5
"""What the network has to gain over RZF, relative: less is left to RZF."""


class PrecoderResult(NamedTuple):
    """W (..., N, K), predicted rates (..., K) in bits/s/Hz, where the guard took RZF (...)."""

    W: Tensor
    rate: Tensor
    guarded: Tensor


class State(NamedTuple):
    """After some layers: the cell as seen there, side powers (B, K), and what users receive."""

    seen: View
    q: Tensor
    response: Response


Look = Callable[[Tensor], View]
"""Uplink shares (B, K) to the cell at these shares."""


class IcgnnPrecoder(nn.Module):
    """The network: WMMSE steps, each corrected.

    Args:
        width: of a user's state.
        layers: of steps, each with one linear system to solve.
    """

    def __init__(self, width: int = 10, layers: int = 6) -> None:
        super().__init__()
        self.config = {"width": width, "layers": layers}
        self.layers = nn.ModuleList(UserLayer(width, FEATURES, not n) for n in range(layers))

    def forward(self, look: Look, weights: Tensor) -> list[State]:
        """States of cells of one size, from RZF to the network's answer.

        Args:
            look: at the cells.
            weights: (B, K), 0 for users not to be served.
        """
        return [states[0] for states in self._states([look], [weights], pool_all)]

    def forward_ragged(self, looks: Sequence[Look], weights: Sequence[Tensor]) -> list[list[State]]:
        """States of cells of any sizes, with one message passing; the same numbers as `forward`.

        Args:
            looks, weights: of every cell, its B = 1.
        """
        sizes = [share.shape[-1] for share in weights]
        steps = list(self._states(looks, weights, pool_of(sizes)))
        return [list(states) for states in zip(*steps, strict=True)]

    def _states(
        self, looks: Sequence[Look], weights: Sequence[Tensor], pool: Pool
    ) -> Iterator[list[State]]:
        """Of every group of cells, before the first and after every layer."""
        now, states = [], []
        for look_at, share in zip(looks, weights, strict=True):
            equal = equal_shares(share)
            seen = look_at(equal)
            now.append(Step(equal.log(), torch.where(share > 0, -seen.length.log(), LEAST)))
            states.append(_state(seen, now[-1]))
        yield states
        present = [(share > 0).to(share.dtype) for share in weights]
        if pool is pool_all:
            served = present[0].unsqueeze(-1).to(self.dtype)
        else:
            served = torch.cat(present, 1)[0].unsqueeze(-1).to(self.dtype)
        h = None
        for number in range(len(self.layers)):
            steps = [
                wmmse_step(state.response, share)
                for state, share in zip(states, weights, strict=True)
            ]
            parts = [
                features(step, before, state.seen, state.response, there)
                for step, before, state, there in zip(steps, now, states, present, strict=True)
            ]
            x = (parts[0] if pool is pool_all else torch.cat(parts, 1)[0]).to(self.dtype)
            h, correction = cast(UserLayer, self.layers[number])(x, h, served, pool)
            added = [correction]
            if pool is not pool_all:
                added = [
                    part.unsqueeze(0)
                    for part in correction.split([share.shape[-1] for share in weights])
                ]
            now = [
                Step(
                    log_share(step.share + more[..., 0].to(step.share)),
                    log_share(step.q + more[..., 1].to(step.q)),
                )
                for step, more in zip(steps, added, strict=True)
            ]
            states = [
                _state(look_at(step.share.exp()), step)
                for look_at, step in zip(looks, now, strict=True)
            ]
            yield states

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; Gram matrix, solves and features keep the cell's precision."""
        return next(self.parameters()).dtype


def _state(seen: View, now: Step) -> State:
    q = now.q.exp()
    return State(seen, q, respond(seen, q))


def run(network: IcgnnPrecoder, cell: Cell, **solving: Unpack[Solving]) -> list[State]:
    """The network's states for cells of one size, from RZF on; `solving` as for `look`."""

    def look_at(share: Tensor) -> View:
        return look(cell.A, share, **solving)

    states: list[State] = network(look_at, cell.weights)
    return states


def precode(
    network: IcgnnPrecoder,
    H: Tensor,
    power: Level = 1.0,
    noise_power: Level = 1.0,
    *,
    weights: Tensor | None = None,
    antenna_power: Level | None = None,
    guard: bool = True,
    solver: Solver = "cholesky",
    tolerance: float = CG_TOLERANCE,
    max_iterations: int | None = None,
) -> PrecoderResult:
    """Precoders of channels of one size.

    Args:
        H: (..., K, N) complex, row k as used in y_k = H[k] W s.
        power: total, a number or broadcastable to (...).
        noise_power: of every user, likewise.
        weights: of the users' rates, positive, broadcastable to (..., K); only their ratios count.
        antenna_power: limit of every antenna; W is scaled down by one factor to keep it.
        guard: take RZF where it has the higher predicted weighted sum rate, of the finished W, and
            the best of the layers.
        solver, tolerance, max_iterations: as for `solve_hermitian`.

    Returns:
        W with ||W||_F^2 = power (less under `antenna_power`), in the channels' precision; between,
        everything but the message passing is in double precision.
    """
    flat, levels, share = _flatten(H, (power, noise_power), weights)
    result, _ = precode_cells(
        network,
        flat,
        levels,
        share,
        antenna_power=antenna_power,
        guard=guard,
        solver=solver,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    shapes = (H.shape[:-2] + result.W.shape[-2:], H.shape[:-1], H.shape[:-2])
    return PrecoderResult(*(part.reshape(s) for part, s in zip(result, shapes, strict=True)))


def precode_cells(
    network: IcgnnPrecoder,
    H: Tensor,
    levels: Sequence[Tensor],
    weights: Tensor | None,
    *,
    antenna_power: Level | None = None,
    guard: bool = True,
    **solving: Unpack[Solving],
) -> tuple[PrecoderResult, View]:
    """As `precode` with one leading dimension, and the cells as RZF sees them.

    Args:
        network, antenna_power, guard, solving: as for `precode`.
        H: (B, K, N) complex.
        levels: power and noise_power, (B,) each.
        weights: (B, K) or None.
    """
    cell = observe(_double(H), levels[0], levels[1], weights)
    states = run(network, cell, **solving)
    return _finish(H, cell, states, levels, antenna_power, guard), states[0].seen


def precode_ragged(
    network: IcgnnPrecoder,
    channels: Sequence[Tensor],
    power: Sequence[float] | float = 1.0,
    noise_power: Sequence[float] | float = 1.0,
    *,
    weights: Sequence[Tensor] | None = None,
    antenna_power: float | None = None,
    guard: bool = True,
    solver: Solver = "cholesky",
) -> list[PrecoderResult]:
    """Precoders of channels of any sizes: one message passing for all, on one graph.

    Args:
        channels: each (K, N) complex, with its own K and N.
        power, noise_power: one number for all, or one each.
        weights: (K,) each.
        antenna_power, guard, solver: as for `precode`.

    Returns:
        One result for every channel, in their order, without a leading dimension.
    """
    count = len(channels)
    powers = [power] * count if isinstance(power, float | int) else list(power)
    noises = [noise_power] * count if isinstance(noise_power, float | int) else list(noise_power)
    shares: list[Tensor | None] = [None] * count
    if weights is not None:
        shares = [share.unsqueeze(0) for share in weights]
    cells = [
        observe(_double(H.unsqueeze(0)), own_power, noise, share)
        for H, own_power, noise, share in zip(channels, powers, noises, shares, strict=True)
    ]

    def look_at(A: Tensor) -> Look:
        return lambda share: look(A, share, solver=solver)

    found = network.forward_ragged([look_at(c.A) for c in cells], [c.weights for c in cells])
    results = []
    for H, cell, states, *level in zip(channels, cells, found, powers, noises, strict=True):
        levels = [cell.weights.new_tensor([value]) for value in level]
        result = _finish(H.unsqueeze(0), cell, states, levels, antenna_power, guard)
        results.append(PrecoderResult(*(part[0] for part in result)))
    return results


def _flatten(
    H: Tensor, levels: Sequence[Level], weights: Tensor | None
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """One leading dimension for everything."""
    leading, users = H.shape[:-2], H.shape[-2]
    like = _double(H[..., 0, 0])
    flat = [expand_level(level, like, 0).expand(leading).reshape(-1) for level in levels]
    share = None if weights is None else weights.expand(*leading, users).reshape(-1, users)
    return H.reshape(-1, *H.shape[-2:]), flat, share


def _finish(
    H: Tensor,
    cell: Cell,
    states: Sequence[State],
    levels: Sequence[Tensor],
    antenna_power: Level | None,
    guard: bool,
) -> PrecoderResult:
    """W in N dimensions, after the guard has had its say."""
    exact, (power, noise_power) = _double(H), levels
    X = directions(states[-1].seen, states[-1].q)
    if guard:
        value = (cell.weights * states[-1].response.rates()).sum(-1)
        for state in states[1:-1]:
            reached = (cell.weights * state.response.rates()).sum(-1)
            higher = reached > value
            X = torch.where(higher[:, None, None], directions(state.seen, state.q), X)
            value = torch.where(higher, reached, value)
    candidates = [normalise(exact.mH @ X, power, "total")]
    if guard:
        safe = directions(states[0].seen, (cell.weights > 0).to(cell.weights))
        candidates.insert(0, normalise(exact.mH @ safe, power))
    if antenna_power is not None:
        candidates = [limit_antenna_power(W, antenna_power) for W in candidates]
    finished = [W.to(H.dtype) for W in candidates]
    margin = MARGIN if guard else 0.0
    found = best_of(exact, finished, noise_power, cell.weights, margin=margin)
    taken = found.number == 0 if guard else torch.zeros_like(found.number, dtype=torch.bool)
    return PrecoderResult(found.W.contiguous(), found.rate.to(H.real.dtype), taken)


def _double(H: Tensor) -> Tensor:
    return H.to(torch.complex128)

# SPDX-License-Identifier: Apache-2.0
"""ICGNN precoding: one network for any number of users and antennas.

The network gives two shares for every user, of virtual uplink power (lambda) and of downlink
power (p). With A = H H^H P / s2 and L = diag(lambda), the optimal linear structure in K dimensions
is W ~ H^H (L A + I)^-1, every column scaled to its p. Equal shares are regularised zero forcing,
and equal shares are what an untrained network gives.

Source: the idea, Sun et al. (arXiv 2408.17252, abstract); the structure, Björnson, Bengtsson,
Ottersten 2014 (doi 10.1109/MSP.2014.2312183); features and network are this package's own design.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack, cast

import torch
from torch import Tensor, nn

from ..signals.linear import limit_antenna_power
from ..signals.rates import Level, expand_level, squared_magnitude
from ..signals.solve import CG_TOLERANCE, Solver
from .graph import (
    EDGE_FEATURES,
    NODE_FEATURES,
    UserGraph,
    batch_graphs,
    join,
    response_features,
)
from .guard import best_of_joined
from .layer import EdgeLayer, zero_linear
from .structure import (
    Cell,
    Shape,
    Solving,
    equal_shares,
    observe,
    received_amplitudes,
    structure,
)


class PrecoderResult(NamedTuple):
    """W (..., N, K), predicted rates (..., K) in bits/s/Hz, where the guard took RZF (...)."""

    W: Tensor
    rate: Tensor
    guarded: Tensor


Respond = Callable[[Tensor, Tensor], Tensor]
"""Shares (uplink, downlink), (B, K) each, to |h_k w_j|^2 / s2 (B, K, K)."""


class IcgnnPrecoder(nn.Module):
    """The network: features of a cell's users to their shares of power.

    Before every layer the shares so far are put through the cell; the first layer sees the
    response to RZF. The shares are softmaxes of sums over the layers.

    Args:
        width: of a node's state.
        messages: of a message.
        layers: of message passing, each with one linear system to solve.
    """

    def __init__(self, width: int = 32, messages: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.config = {"width": width, "messages": messages, "layers": layers}
        self.embedding = nn.Linear(NODE_FEATURES, width)
        self.layers = nn.ModuleList(
            EdgeLayer(width, messages, NODE_FEATURES, EDGE_FEATURES) for _ in range(layers)
        )
        self.heads = nn.ModuleList(zero_linear(width + NODE_FEATURES, 2) for _ in range(layers))

    def forward(
        self, static: UserGraph, weights: Tensor, start: Tensor, respond: Respond
    ) -> tuple[Tensor, Tensor]:
        """Shares of a batch of cells of one size (the dense path).

        Args:
            static: as `static_features` gives it.
            weights: (B, K).
            start: (B, K, K), the response to equal shares.
            respond: to the shares after each layer but the last.

        Returns:
            uplink and downlink, (B, K) in the features' precision, each positive with sum 1.
        """
        logits = start.new_zeros((*weights.shape, 2))
        uplink, downlink = _shares(logits)
        received, h = start, None
        for number, (layer, head) in enumerate(zip(self.layers, self.heads, strict=True)):
            if number:
                received = respond(uplink, downlink)
            graph = self._features(static, received, uplink, downlink, weights)
            x, e = graph.x.to(self.dtype), graph.e.to(self.dtype)
            h = self.embedding(x) if h is None else h
            h = cast(EdgeLayer, layer).dense(h, x, e)
            logits = logits + head(torch.cat([h, x], -1)).to(logits.dtype)
            uplink, downlink = _shares(logits)
        return uplink, downlink

    def forward_ragged(
        self,
        cells: Sequence["Cell"],
        starts: Sequence[Tensor],
        responds: Sequence[Respond],
    ) -> list[tuple[Tensor, Tensor]]:
        """Shares of cells of any sizes, on one graph; the same numbers as `forward`.

        Args:
            cells: each of one channel, its B = 1.
            starts, responds: as for `forward`, of each.
        """
        sizes = [cell.weights.shape[1] for cell in cells]
        logits = [
            cell.graph.x.new_zeros(1, size, 2) for cell, size in zip(cells, sizes, strict=True)
        ]
        received, h = list(starts), None
        for number, (layer, head) in enumerate(zip(self.layers, self.heads, strict=True)):
            shares = [_shares(part) for part in logits]
            if number:
                received = [r(*share) for r, share in zip(responds, shares, strict=True)]
            graph = batch_graphs(
                [
                    self._features(cell.graph, seen, *share, cell.weights)
                    for cell, seen, share in zip(cells, received, shares, strict=True)
                ]
            )
            x, e = graph.x.to(self.dtype), graph.edge_attr.to(self.dtype)
            h = self.embedding(x) if h is None else h
            h = layer(h, x, graph.edge_index, e)
            added = head(torch.cat([h, x], -1)).to(logits[0].dtype).split(sizes)
            logits = [part + more for part, more in zip(logits, added, strict=True)]
        return [_shares(part) for part in logits]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; Gram matrix, solves and shares keep the cell's precision."""
        return self.embedding.weight.dtype

    def _features(self, static: UserGraph, *response: Tensor) -> UserGraph:
        """All features, of `response_features` too, in the weights' precision, at least single."""
        precision = torch.promote_types(self.dtype, torch.float32)
        seen = response_features(*(part.to(precision) for part in response))
        return join(UserGraph(*(part.to(precision) for part in static)), seen)


def _shares(logits: Tensor) -> tuple[Tensor, Tensor]:
    shares = torch.softmax(logits, -2)
    return shares[..., 0], shares[..., 1]


def run(network: IcgnnPrecoder, cell: Cell, **solving: Unpack[Solving]) -> tuple[Shape, Shape]:
    """The network's answer for cells of one size, and RZF, which it starts from.

    Args:
        network: see `IcgnnPrecoder`.
        cell: as `observe` gives it.
        solving: as for `structure`.
    """
    rzf, start, respond = _prepare(cell, solving)
    uplink, downlink = network(cell.graph, cell.weights, start, respond)
    return Shape(structure(cell.A, uplink, **solving), downlink, uplink), rzf


def _prepare(cell: Cell, solving: Solving) -> tuple[Shape, Tensor, Respond]:
    """RZF, the response to it, and the cell's response to any shares."""
    equal = equal_shares(cell.A)
    rzf = Shape(structure(cell.A, equal, **solving), equal, equal)

    def respond(uplink: Tensor, downlink: Tensor) -> Tensor:
        Y = structure(cell.A, uplink, **solving)
        return squared_magnitude(received_amplitudes(cell.A, Y, downlink))

    start = squared_magnitude(received_amplitudes(cell.A, rzf.Y, equal))
    return rzf, start, respond


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
        guard: take RZF where it has the higher predicted weighted sum rate, of the finished W.
        solver, tolerance, max_iterations: as for `solve_hermitian`.

    Returns:
        W with ||W||_F^2 = power (less under `antenna_power`), in the channels' precision; between,
        everything but the message passing is in double precision. An untrained network gives RZF.
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
) -> tuple[PrecoderResult, Shape]:
    """As `precode` with one leading dimension, and RZF in K dimensions, double precision.

    Args:
        network, antenna_power, guard, solving: as for `precode`.
        H: (B, K, N) complex.
        levels: power and noise_power, (B,) each.
        weights: (B, K) or None.
    """
    cell = observe(_double(H), levels[0], levels[1], weights)
    learned, rzf = run(network, cell, **solving)
    return _finish(H, cell, learned, rzf, levels, antenna_power, guard), rzf


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
    prepared = [_prepare(cell, {"solver": solver}) for cell in cells]
    safe, starts, responds = zip(*prepared, strict=True)
    results = []
    for index, (uplink, downlink) in enumerate(network.forward_ragged(cells, starts, responds)):
        H, cell = channels[index].unsqueeze(0), cells[index]
        learned = Shape(structure(cell.A, uplink, solver=solver), downlink, uplink)
        levels = [cell.weights.new_tensor([level[index]]) for level in (powers, noises)]
        result = _finish(H, cell, learned, safe[index], levels, antenna_power, guard)
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
    learned: Shape,
    rzf: Shape,
    levels: Sequence[Tensor],
    antenna_power: Level | None,
    guard: bool,
) -> PrecoderResult:
    """W in N dimensions, after the guard has had its say."""
    exact, (power, noise_power) = _double(H), levels
    shapes = (learned, rzf) if guard else (learned,)
    W = exact.mH @ torch.cat([shape.Y for shape in shapes], -1)
    length = squared_magnitude(W).sum(-2)
    share = torch.cat([shape.downlink for shape in shapes], -1)
    scale = expand_level(power, exact, 1) * share / torch.where(length > 0, length, 1.0)
    W = W * scale.sqrt().unsqueeze(-2)
    if antenna_power is not None:
        parts = W.split(H.shape[-2], -1)
        W = torch.cat([limit_antenna_power(part, antenna_power) for part in parts], -1)
    found = best_of_joined(exact, W.to(H.dtype), noise_power, cell.weights)
    return PrecoderResult(found.W.contiguous(), found.rate.to(H.real.dtype), found.number == 1)


def _double(H: Tensor) -> Tensor:
    return H.to(torch.complex128)

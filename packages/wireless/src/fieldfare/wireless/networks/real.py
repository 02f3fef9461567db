# SPDX-License-Identifier: Apache-2.0
"""The precoder in real arithmetic: with its guard and with user selection, for ONNX.

A complex matrix C is the real block matrix [[Re C, -Im C], [Im C, Re C]], and systems are solved by
elimination in a loop, for ONNX has neither complex numbers nor Cholesky factors. All but the
message passing is in double precision: at 40 dB with more users than antennas single precision
leaves nothing of the inverse.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan_op

from .graph import Step, features, wmmse_step
from .layer import UserLayer, pool_all
from .precoder import IcgnnPrecoder
from .rounded import RoundedLayer
from .structure import LEAST, View, equal_shares, log_share, respond, view

EXPECTED = (1.0, 0.5, 0.25)
"""Of as many users as can be served at once: what greedy selection divides the power by."""


class RealPrecoder(nn.Module):
    """The best of the network and of RZF, from all users, from a greedy selection, from one user.

    As `networks.users.precode_users` with equal weights, but that selection goes by one uplink
    power for any number of users, and that the strongest user alone is tried as well.

    The layers are a loop over stacked weights: the graph holds one of them, which takes a third of
    the time to write that six take. The first, which has no state yet, sees one of zeros.

    Args:
        network: the trained network.
    """

    def __init__(self, network: IcgnnPrecoder) -> None:
        super().__init__()
        layers = [cast(UserLayer, layer) for layer in network.layers]
        grids = [
            [linear.grid() for linear in (layer.input, layer.mix, layer.head)]
            for layer in layers
            if isinstance(layer, RoundedLayer)
        ]
        first: Tensor = layers[0].input.weight
        rows = [torch.cat([first, first.new_zeros(first.shape[0], first.shape[0])], 1)]
        rows += [layer.input.weight for layer in layers[1:]]
        stacked: list[list[Tensor]] = [
            rows,
            [layer.input.bias for layer in layers],
            [layer.mix.weight for layer in layers],
            [layer.mix.bias for layer in layers],
            [layer.head.weight for layer in layers],
            [layer.head.bias for layer in layers],
        ]
        if grids:
            stacked.append([first.new_tensor(each) for each in grids])
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack(parts), requires_grad=False) for parts in stacked
        )

    def forward(self, channels: Tensor, power: Tensor, noise_power: Tensor) -> Tensor:
        """W of channels.

        Args:
            channels: (B, K, N, 2), real and imaginary part of H.
            power, noise_power: (B,).

        Returns:
            (B, N, K, 2).
        """
        users, antennas = channels.shape[1:3]
        power, noise_power = power.double(), noise_power.double()
        real, imaginary = channels.double().unbind(-1)
        H = _block(real, imaginary)  # (B, 2 K, 2 N)
        A = H @ H.mT * (power / noise_power)[:, None, None]
        most = torch.full_like(power, 1) * min(users, antennas)
        tries = len(EXPECTED)
        expected = torch.cat([most * share for share in EXPECTED])
        served = _greedy(torch.cat([A] * tries), expected)
        gains = _diagonal(A, users)
        strongest = (gains >= gains.amax(-1, keepdim=True)).to(gains.dtype)
        # From everyone, from those selected and from one user, as batches of one pass.
        starts = tries + 2
        weights = torch.cat([torch.ones_like(gains), served, strongest])
        whole = torch.cat([A] * starts)
        share = equal_shares(weights)
        start = _look(whole, share, _inverse(whole, share))
        seen, q = self._layers(whole, weights, start)
        learned = _side(seen.share) * seen.inverse * _side(q).mT
        plain = _side(start.share) * start.inverse
        columns = (weights > 0).to(gains.dtype)
        columns = columns / columns.sum(-1, keepdim=True).clamp_min(1)
        columns = columns * torch.cat([power] * starts).unsqueeze(-1)
        channels, limit, noise = (torch.cat([part] * starts) for part in (H, power, noise_power))
        rzf, found = channels.mT @ plain, channels.mT @ learned
        W = torch.cat([_scaled(rzf, columns), _limited(found, limit)])
        rate = _sum_rate(torch.cat([channels] * 2), W, torch.cat([noise] * 2))
        rate = rate.reshape(2 * starts, *power.shape)
        order = torch.cumsum(torch.ones_like(rate), 0)
        first = torch.where(rate >= rate.amax(0), order, 1e9).amin(0)  # the best, and but one
        taken = (order == first).to(W.dtype)[:, :, None, None]
        W = (taken * W.reshape(2 * starts, *H.mT.shape)).sum(0)
        return torch.stack([W[:, :antennas, :users], W[:, antennas:, :users]], -1).float()

    def _layers(self, A: Tensor, weights: Tensor, first: View) -> tuple[View, Tensor]:
        """The cell at the network's shares, and its side powers."""
        log_q = torch.where(weights > 0, -first.length.log(), LEAST)
        width = self.weights[1]
        h = torch.zeros_like(weights, dtype=width.dtype).unsqueeze(-1) * width[0]
        stacked = list(self.weights)
        carried = [h, log_q, first.share.clone(), first.inverse.clone()]
        _, log_q, share, inverse, _ = scan_op(_layer, carried, stacked, (A, weights))
        return _look(A, share, inverse), log_q.exp()


def _layer(*given: Tensor) -> list[Tensor]:
    """One corrected WMMSE step: state, log side powers, shares and inverse to the next."""
    h, log_q, share, inverse, rows, bias, mix, mix_bias, head, head_bias, *grids, A, weights = given
    seen = _look(A, share, inverse)
    response = respond(seen, log_q.exp())
    step = wmmse_step(response, weights)
    served = (weights > 0).to(weights.dtype)
    x = features(step, Step(share.log(), log_q), seen, response, served).to(h.dtype)
    there = served.unsqueeze(-1).to(h.dtype)
    h = torch.relu(_on_grid(torch.cat([x, h], -1), grids, 0) @ rows.mT + bias)
    h = torch.cat([h, *pool_all(h, there)], -1)
    h = torch.relu(_on_grid(h, grids, 1) @ mix.mT + mix_bias)
    added = (_on_grid(h, grids, 2) @ head.mT + head_bias).to(log_q.dtype)
    share = log_share(step.share + added[..., 0]).exp()
    log_q = log_share(step.q + added[..., 1])
    spare = log_q.amax(-1)  # a loop without outputs makes the exporter talk
    return [h.clone(), log_q.clone(), share.clone(), _inverse(A, share), spare]


def _on_grid(x: Tensor, grids: Sequence[Tensor], part: int) -> Tensor:
    """Rounded where the network has grids (3, 4) of its three linear layers."""
    if not grids:
        return x
    each, step, least, most = grids[0][part].unbind()
    return (x * each).maximum(least).minimum(most).round() * step


def _look(A: Tensor, share: Tensor, inverse: Tensor) -> View:
    """As `networks.structure.look`; the inverse is (B, 2 K, 2 K)."""
    users = share.shape[-1]
    side = _side(share)
    lost = (inverse[:, :users] * (side * A * side.mT)[:, :users]).sum(-1)
    return view(inverse, _magnitude(inverse, users), lost, share)


def _side(power: Tensor) -> Tensor:
    """Roots of (B, K) as a column for both halves, (B, 2 K, 1)."""
    root = power.sqrt()
    return torch.cat([root, root], -1).unsqueeze(-1)


def _inverse(A: Tensor, share: Tensor) -> Tensor:
    """(L^1/2 A L^1/2 + I)^-1 at shares L (B, K), by Gauss and Jordan in place.

    Positive definite systems of unit diagonal need no search for pivots.
    """
    side = _side(share)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    system = side * A * side.mT + eye
    scale = torch.diagonal(system, dim1=-2, dim2=-1).rsqrt().unsqueeze(-1)

    def step(M: Tensor, e: Tensor) -> list[Tensor]:
        column = (M * e).sum(-1)
        row = (M * e.unsqueeze(-1)).sum(-2)
        pivot = (column * e).sum(-1)
        update = (column - e).unsqueeze(-1) * (row + e).unsqueeze(-2)
        return [M - update / pivot[:, None, None], pivot.clone()]

    found: Tensor = scan_op(step, [scale * system * scale.mT], [eye], ())[0]
    return scale * found * scale.mT


def _greedy(A: Tensor, expected: Tensor) -> Tensor:
    """Users that greedy selection serves, (B, K) of 0 and 1; see `signals.selection`.

    All users have the same uplink power, one over how many are expected. The matrix A / count + I
    is inverted in place for one chosen user after the other: its diagonal then holds the error of
    chosen users and the pivot of others, its columns what one more user would add to the errors.

    Args:
        A: (B, 2 K, 2 K).
        expected: (B,), number of users.
    """
    expected = expected.clamp_min(1)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    chosen = torch.zeros_like(A[:, 0, : A.shape[-1] // 2])
    value = torch.zeros_like(expected)

    def step(M: Tensor, chosen: Tensor, value: Tensor, tick: Tensor) -> list[Tensor]:
        half = chosen.shape[-1]
        diagonal = torch.diagonal(M, dim1=-2, dim2=-1)[:, :half]
        pivot = diagonal.clamp_min(1)
        added = (M[:, :half, :half].square() + M[:, half:, :half].square()) / pivot.unsqueeze(1)
        errors = (diagonal.unsqueeze(-1) + added).clamp_min(1e-30).log() * chosen.unsqueeze(-1)
        rates = pivot.log() - errors.sum(1) - 1e30 * chosen
        best = rates.amax(-1)
        more = (best > value).to(M.dtype)
        order = torch.cumsum(torch.ones_like(rates), -1)
        first = torch.where(rates >= best.unsqueeze(-1), order, 1e9).amin(-1, keepdim=True)
        user = (order == first).to(M.dtype) * more.unsqueeze(-1)
        for e in (torch.cat([user, 0 * user], -1), torch.cat([0 * user, user], -1)):
            column = (M * e.unsqueeze(1)).sum(-1)
            row = (M * e.unsqueeze(-1)).sum(-2)
            pivots = (column * e).sum(-1) + 1 - more
            update = (column - e).unsqueeze(-1) * (row + e).unsqueeze(-2)
            M = M - update * (more / pivots)[:, None, None]
        value = torch.where(more > 0, best, value)
        return [M, chosen + user, value, best.clone()]

    ticks = torch.ones_like(chosen[0])
    state = [A / expected[:, None, None] + eye, chosen, value]
    found: Tensor = scan_op(step, state, [ticks], ())[1]
    return found


def _block(real: Tensor, imaginary: Tensor) -> Tensor:
    upper = torch.cat([real, -imaginary], -1)
    return torch.cat([upper, torch.cat([imaginary, real], -1)], -2)


def _magnitude(block: Tensor, users: int) -> Tensor:
    """|C|^2 of a block matrix, (B, K, K)."""
    return block[:, :users, :users].square() + block[:, users:, :users].square()


def _diagonal(block: Tensor, users: int) -> Tensor:
    return torch.diagonal(block[:, :users, :users], dim1=-2, dim2=-1)


def _limited(W: Tensor, power: Tensor) -> Tensor:
    """W (B, 2 N, 2 K) scaled to a total power (B,), rounded to single precision."""
    total = W.square().sum((-2, -1)) / 2
    scale = (power / torch.where(total > 0, total, 1.0)).sqrt()
    return (W * scale[:, None, None]).float().double()


def _scaled(W: Tensor, power: Tensor) -> Tensor:
    """W (B, 2 N, 2 K) with columns of these powers (B, K), rounded to single precision."""
    norm = W.square().sum(-2)
    both = torch.cat([power, power], -1)
    scale = (both / torch.where(norm > 0, norm, 1.0)).sqrt()
    return (W * scale.unsqueeze(-2)).float().double()


def _sum_rate(H: Tensor, W: Tensor, noise_power: Tensor) -> Tensor:
    received = _magnitude(H @ W, H.shape[1] // 2)
    signal = torch.diagonal(received, dim1=-2, dim2=-1)
    unwanted = received.sum(-1) - signal + noise_power[:, None]
    return torch.log1p(signal / unwanted).sum(-1)

# SPDX-License-Identifier: Apache-2.0
"""The compiled loops for tensors on the CPU: every precoder of wl-precode, and the rates.

All of it is in double precision; W comes back in the channels' own. Channels are shared out over as
many threads as torch has.
"""

import copy
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..layer import UserLayer
from ..precoder import IcgnnPrecoder
from ..rounded import RoundedLinear
from . import conventional, forcing, greedy, learned
from .vectors import LANES

Work = Callable[[int, int], None]
"""On channels from the first to the last but one, the first a multiple of eight."""

LEAST_OF_A_THREAD = 64
"""Channels."""


class Learned(NamedTuple):
    """W (B, N, K), and weighted sum rates of W and of RZF (B,), nats; equal where W is RZF."""

    W: Tensor
    value: Tensor
    safe: Tensor


class Compiled(NamedTuple):
    """A network for the loops: weights and grids of its inputs layer by layer, width and layers."""

    numbers: np.ndarray
    grids: np.ndarray
    width: int
    layers: int


def compile_network(network: IcgnnPrecoder) -> Compiled:
    """What the loops need of a network, as it is now."""
    parts, grids = [], []
    for layer in cast(Iterable[UserLayer], network.layers):
        for linear in (layer.input, layer.mix, layer.head):
            parts += [linear.weight, linear.bias]
            if isinstance(linear, RoundedLinear):
                grids.append(linear.grid())
    numbers = torch.cat([part.detach().cpu().double().ravel() for part in parts]).numpy()
    size = network.config["width"], network.config["layers"]
    return Compiled(numbers, np.array(grids, np.float64).ravel(), *size)


class Channels:
    """Channels (B, K, N), ready for the loops.

    Args:
        H: complex, on the CPU.
        power, noise_power: (B,).
        weights: (B, K), not negative, or None; users of weight 0 are not served.
    """

    def __init__(
        self, H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None = None
    ) -> None:
        self.count, self.users, self.antennas = H.shape
        self.dtype = H.dtype
        self.H = flat_matrices(H)
        self.power, self.noise = _column(power), _column(noise_power)
        self.snr = self.power / self.noise
        given = np.ones((self.count, self.users)) if weights is None else _doubles(weights)
        rows = self.H.reshape(self.count, self.users, -1)
        if rows[:, :, 0].all():  # a look at one number of every user is mostly enough
            self.weights = given
        else:
            self.weights = np.where(rows.any(2), given, 0.0)

    def most_snr(self) -> float:
        """No user of any channel has more power over the noise, linear."""
        largest = max(self.H.max(initial=0.0), -self.H.min(initial=0.0))
        return float(2 * self.antennas * largest**2 * self.snr.max(initial=0.0))

    def rzf(self) -> Tensor:
        """Regularised zero forcing for the served users, every column with the same power."""
        served = (self.weights > 0).astype(np.float64)
        share = served / np.maximum(served.sum(1, keepdims=True), 1)
        return self._finish(np.maximum(share, 1e-100), served, even=True)

    def mrt(self) -> Tensor:
        """Maximum ratio for the served users, every column with the same power."""
        return self._forced(forced=False, filled=False)

    def zf(self, *, filled: bool = False) -> Tensor:
        """Zero forcing of the served users, columns of equal power or by water-filling.

        Raises:
            InputError: more users than antennas, or linearly dependent channels.
        """
        most = int((self.weights > 0).sum(1).max(initial=0))
        if most > self.antennas:
            raise InputError(
                f"zero forcing: {most} users need at least as many antennas, not {self.antennas};"
                " use rzf"
            )
        return self._forced(forced=True, filled=filled)

    def wmmse(self, tolerance: float = 1e-6, most: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
        """W, iterations (B,) int64 and whether each converged (B,), from RZF."""
        share, q = np.empty_like(self.weights), np.empty_like(self.weights)
        iterations, converged = np.zeros(self.count, np.int64), np.zeros(self.count, np.bool_)
        each = (tolerance, most)

        def work(begin: int, end: int) -> None:
            given = (self.H, self.users, self.antennas, self.snr, self.weights, *each, begin, end)
            conventional.wmmse(*given, share, q, iterations, converged)

        share_out(work, self.count)
        W = self._finish(share, q, even=False)
        return W, torch.from_numpy(iterations), torch.from_numpy(converged)

    def greedy(self) -> Tensor:
        """(B, K) bool: users of greedy selection."""
        served = np.empty_like(self.weights)

        def work(begin: int, end: int) -> None:
            given = (self.H, self.users, self.antennas, self.snr, self.weights)
            greedy.greedy(*given, begin, end, served)

        share_out(work, self.count)
        return torch.from_numpy(served) > 0

    def served_by(self, rows: Tensor, served: Tensor) -> "Channels":
        """Some of the channels (n,), with those of their users (n, K)."""
        found = copy.copy(self)
        index = rows.numpy()
        found.count = len(index)
        for name in ("H", "power", "noise", "snr"):
            setattr(found, name, getattr(self, name)[index])
        found.weights = np.where(served.numpy(), self.weights[index], 0.0)
        return found

    def network(
        self, network: Compiled, *, guard: bool = True, select: bool = True, steps: int = 0
    ) -> Learned:
        """Precoders by the trained network.

        Args:
            network: see `Compiled`.
            guard: whether RZF and earlier layers are taken where they are better.
            select: whether it also starts from the users of greedy selection; the better is taken.
            steps: of WMMSE, behind the layers.
        """
        W = np.empty((self.count, self.antennas * self.users, 2))
        value, safe = np.empty((self.count, 1)), np.empty((self.count, 1))

        def work(begin: int, end: int) -> None:
            given = (self.H, self.users, self.antennas, self.snr, self.power, self.weights)
            learned.network(*given, *network, steps, guard, select, begin, end, W, value, safe)

        share_out(work, self.count)
        reached, plain = (torch.from_numpy(part[:, 0]) for part in (value, safe))
        return Learned(self._matrices(W), reached, plain)

    def _forced(self, *, forced: bool, filled: bool) -> Tensor:
        W = np.empty((self.count, self.antennas * self.users, 2))
        shortest = np.full((self.count, 1), np.inf)

        def work(begin: int, end: int) -> None:
            given = (self.H, self.users, self.antennas, self.noise, self.power, self.weights)
            forcing.forcing(*given, forced, filled, begin, end, W, shortest)

        share_out(work, self.count)
        wrong = ~(shortest > self.antennas * torch.finfo(self.dtype).eps)
        if wrong.any():
            raise InputError(
                f"zero forcing: the users' channels of matrix {wrong.argmax()} are linearly"
                " dependent; use rzf"
            )
        return self._matrices(W)

    def _finish(self, share: np.ndarray, q: np.ndarray, *, even: bool) -> Tensor:
        W = np.empty((self.count, self.antennas * self.users, 2))

        def work(begin: int, end: int) -> None:
            given = (self.H, self.users, self.antennas, self.snr, self.power)
            conventional.finish(*given, share, q, even, begin, end, W)

        share_out(work, self.count)
        return self._matrices(W)

    def _matrices(self, W: np.ndarray) -> Tensor:
        single = self.dtype == torch.complex64
        whole = W.view(np.complex128).astype(np.complex64 if single else np.complex128, copy=False)
        return torch.from_numpy(whole.reshape(self.count, self.antennas, self.users))


def rates(H: Tensor, W: Tensor, noise_power: Tensor) -> Tensor:
    """Rates (B, K) in bits/s/Hz, float64, of channels (B, K, N) and precoders (B, N, K).

    Args:
        noise_power: (B,).
    """
    count, users, antennas = H.shape
    found = np.empty((count, users))
    noise, channels, precoders = _column(noise_power), flat_matrices(H), flat_matrices(W)

    def work(begin: int, end: int) -> None:
        given = (channels, precoders, users, antennas, noise)
        conventional.rates(*given, begin, end, found)

    share_out(work, count)
    return torch.from_numpy(found)


def share_out(work: Work, count: int, least: int = LEAST_OF_A_THREAD) -> None:
    """Do all channels, in eights, with torch's number of threads, each at least so many."""
    threads = max(1, min(torch.get_num_threads(), count // least))
    if threads == 1:
        work(0, count)
        return
    each = -(-count // (threads * LANES)) * LANES
    starts = range(0, count, each)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, starts, [min(start + each, count) for start in starts]))


def flat_matrices(matrices: Tensor) -> np.ndarray:
    """(B, m, n) complex as (B, m n, 2) doubles."""
    plain = matrices.detach().resolve_conj().numpy()  # numpy takes a third of torch's time here
    parts: np.ndarray = np.ascontiguousarray(plain, np.complex128).view(np.float64)
    return parts.reshape(len(matrices), -1, 2)


def _doubles(numbers: Tensor) -> np.ndarray:
    return np.ascontiguousarray(numbers.detach().numpy(), np.float64)


def _column(level: Tensor) -> np.ndarray:
    return _doubles(level).reshape(-1, 1)

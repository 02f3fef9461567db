# SPDX-License-Identifier: Apache-2.0
"""Mini-batches to train on, each drawn anew from its number alone, so that a run can resume."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw

from ..channels.drops import draw_networks
from ..channels.rayleigh import rayleigh
from ..channels.tr38901 import Scenario, draw_sector
from ..signals.cell_free import CellFree, spectral_efficiency
from ..signals.power_baselines import fractional
from ..signals.satisfaction import Profile

CHUNK = 24
"""Cells that Sionna draws at a time."""

PAIRS = 640
"""Of user and access point, in networks of which a whole batch is drawn."""

LENGTH = 1024
"""Nominal length of the data sets; every item of every epoch is new."""


@dataclass(frozen=True)
class CellSettings:
    """What cells to draw; every mini-batch has one size and one kind of channel.

    Attributes:
        users: K is one of these.
        max_antennas: N is drawn from K (fully loaded, in half of the batches) to the lesser of
            this and 4 K.
        snr_db: range of power / noise_power, uniform.
        correlated: share of the batches with correlated antennas.
        weighted: share with weights of the users, log-normal of mean about 1.
        csi_error: share of error in the estimates that the network sees.
        overloaded: share of the batches that keep fewer antennas than users.
    """

    users: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 8, 10, 14, 20)
    max_antennas: int = 32
    snr_db: tuple[float, float] = (-20.0, 60.0)
    correlated: float = 0.5
    weighted: float = 0.15
    csi_error: float = 0.0
    overloaded: float = 0.15


class CellBatches(Dataset[dict[str, Tensor]]):
    """Channels: H (B, K, N), power (B,) at noise power 1, weights (B, K).

    Args:
        settings: see `CellSettings`.
        batch: B, of up to 10 users; less for more of them, so that a step's work is bounded.
        stored: sets of channels (M, K', N') of unit mean gain, `draw_38901` say, from which half of
            the correlated batches take users at random.

    Raises:
        InputError: no user, or more users than `max_antennas`.
    """

    def __init__(
        self, settings: CellSettings, batch: int = 128, stored: Sequence[Tensor] = ()
    ) -> None:
        if min(settings.users) < 1 or max(settings.users) > settings.max_antennas:
            raise InputError("--users: must be 1 to --max-antennas")
        self.settings, self.batch, self.stored = settings, batch, list(stored)

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng, generator, s = draw.rng(), torch_generator(draw), self.settings
        users = int(rng.choice(s.users))
        high = max(users, min(s.max_antennas, 4 * users))
        antennas = users if rng.random() < 0.5 else int(rng.integers(users, high + 1))
        size = (self._count(users), users, antennas)
        if rng.random() >= s.correlated:
            H = rayleigh(size, generator)
        elif self.stored and rng.random() < 0.5:
            stored = self.stored[rng.integers(len(self.stored))]
            most = min(stored.shape[1:])
            users = int(rng.integers(max(1, most // 3), most + 1))
            H = pick_users(stored, self._count(users), users, rng)
        elif rng.random() < 0.5:
            H = neighbours(size, generator)
        else:
            H = plane_waves(size, generator)
        if s.overloaded and H.shape[1] > 1 and rng.random() < s.overloaded:
            H = H[..., : int(rng.integers(1, H.shape[1]))]
        low, high_db = s.snr_db
        snr = low + (high_db - low) * torch.rand(len(H), generator=generator)
        weights = torch.ones(H.shape[:2])
        if rng.random() < s.weighted:
            weights = torch.randn(H.shape[:2], generator=generator).mul(0.6).exp()
            weights = weights / weights.mean(-1, keepdim=True)
        return {"H": H, "power": 10 ** (snr / 10), "weights": weights}

    def _count(self, users: int) -> int:
        return max(16, min(self.batch, self.batch * 100 // users**2))


@dataclass(frozen=True)
class NetworkSettings:
    """What cell-free networks to draw; every mini-batch has one size.

    Attributes:
        users: range of K; aps: range of L (both drawn on a log scale).
        antennas: N is one of these.
        partial: share of the batches in which only the strongest APs serve a user.
        profiles: whether users ask for something, for the objective "satisfaction".
    """

    users: tuple[int, int] = (2, 40)
    aps: tuple[int, int] = (4, 200)
    antennas: tuple[int, ...] = (1, 2, 4, 8)
    partial: float = 0.5
    profiles: bool = False


class NetworkBatches(Dataset[dict[str, Tensor]]):
    """Cell-free networks: the fields of `CellFree` with leading dimension B, and the step.

    Pilots are there only where some users share one; fields of `Profile` (B, K) where asked for.

    Args:
        settings: see `NetworkSettings`.
        batch: B, of up to 640 pairs of user and AP; less of larger ones, so that a step's work is
            bounded.
    """

    def __init__(self, settings: NetworkSettings, batch: int = 32) -> None:
        self.settings, self.batch = settings, batch

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng, s = draw.rng(), self.settings
        users, aps = (
            round(math.exp(rng.uniform(math.log(low), math.log(high))))
            for low, high in (s.users, s.aps)
        )
        serving = None
        if rng.random() < s.partial:
            serving = int(rng.integers(max(1, aps // 8), aps + 1))
        network = draw_networks(
            max(2, min(self.batch, self.batch * PAIRS // (users * aps))),
            users,
            aps,
            int(rng.choice(s.antennas)),
            serving_aps=serving,
            generator=torch_generator(draw),
        )
        fields: dict[str, Tensor | None] = network._asdict()
        known = {name: field for name, field in fields.items() if field is not None}
        if s.profiles:
            known |= draw_profiles(network, torch_generator(draw))._asdict()
        return known | {"step": torch.tensor(draw.seed[1])}


def draw_profiles(network: CellFree, generator: torch.Generator) -> Profile:
    """What users ask for, (B, K): zones about what fractional allocation gives in the mean.

    Adequate is 0.2 to 1.1 of that, desired 1.1 to 2 times adequate; in half of the networks users
    have weights, log-normal.
    """
    size = network.beta.shape[:-1]
    mean = spectral_efficiency(network, fractional(network)).mean(-1, keepdim=True)
    u, v = torch.rand((2, *size), generator=generator)
    weight = torch.randn(size, generator=generator).mul(0.6).exp()
    weighted = torch.rand((size[0], 1), generator=generator) < 0.5
    adequate = mean * (0.2 + 0.9 * u)
    return Profile(adequate, adequate * (1.1 + 0.9 * v), torch.where(weighted, weight, 1.0))


def torch_generator(draw: Draw) -> torch.Generator:
    """Torch's generator for this draw alone."""
    state = np.random.SeedSequence(draw.seed).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def neighbours(size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Exponential correlation (B, K, N), as `exponential_correlation` with users of their own.

    Drawn from one antenna to the next, which takes no root of a matrix. The correlation of
    neighbouring antennas is up to 0.99, the users within a sector of random width.
    """
    batch, users, antennas = size
    magnitude = 1 - 10 ** (-2 * torch.rand((batch, users), generator=generator))
    width = torch.rand((batch, 1), generator=generator)
    phase = math.pi * width * (2 * torch.rand((batch, users), generator=generator) - 1)
    white = rayleigh(size, generator)
    H = [white[..., 0]]
    step = torch.polar(magnitude, phase)
    for antenna in range(1, antennas):
        H.append(step * H[-1] + (1 - magnitude.square()).sqrt() * white[..., antenna])
    return torch.stack(H, -1)


def plane_waves(size: tuple[int, int, int], generator: torch.Generator, paths: int = 12) -> Tensor:
    """Few plane waves on a linear array of half a wavelength, (B, K, N), of unit mean gain.

    Every user has a direction within a sector, a spread about it, and paths whose powers fall off
    at its own rate: from one wave (line of sight) to rich scattering.
    """
    batch, users, antennas = size
    angle = math.pi / 3 * (2 * torch.rand((batch, users, 1), generator=generator) - 1)
    spread = 10 ** (-2 * torch.rand((batch, users, 1), generator=generator))
    theta = angle + spread * torch.randn((batch, users, paths), generator=generator)
    decay = 3 * torch.rand((batch, users, 1), generator=generator).square()
    powers = torch.softmax(-decay * torch.arange(paths), -1)
    gains = rayleigh((batch, users, paths), generator) * powers.sqrt()
    phase = math.pi * theta.sin().unsqueeze(-1) * torch.arange(antennas)
    H = torch.polar(torch.ones_like(phase), phase)
    return (gains.unsqueeze(-1) * H).sum(-2)


def pick_users(stored: Tensor, batch: int, users: int, rng: np.random.Generator) -> Tensor:
    """Random users of random cells of (M, K', N): (batch, users, N)."""
    cell = torch.from_numpy(rng.integers(len(stored), size=(batch, 1)))
    order = np.argsort(rng.random((batch, stored.shape[1])), 1)[:, :users]
    return stored[cell, torch.from_numpy(np.ascontiguousarray(order))]


def draw_38901(cells: int = 144, seed: int = 910_000) -> list[Tensor]:
    """Sets of 3GPP TR 38.901 channels to train on, (M, K', N); takes Sionna and a minute.

    UMi with 32 and 16 antennas, UMa with 64, RMa with 16, each of 4 tones. The 16-antenna sets
    have 10 users a cell, the others 20: sizes of full load with more users stay unseen.

    Raises:
        InputError: Sionna is not installed.
    """
    kinds: list[tuple[Scenario, int, int, tuple[int, int], float]] = [
        ("umi", 2 * cells, 20, (4, 4), 3.5e9),
        ("umi", cells, 10, (2, 4), 3.5e9),
        ("uma", cells // 2, 20, (4, 8), 3.5e9),
        ("rma", cells, 10, (2, 4), 0.7e9),
    ]
    sets = []
    for kind, (scenario, count, users, panel, carrier) in enumerate(kinds):
        parts = [
            draw_sector(
                scenario,
                min(CHUNK, count - first),
                users,
                panel,
                carrier_hz=carrier,
                tones=4,
                tone_spacing_hz=1.44e6,
                seed=seed + 1000 * kind + first,
            ).H.flatten(0, 1)
            for first in range(0, count, CHUNK)
        ]
        sets.append(torch.cat(parts))
    return sets

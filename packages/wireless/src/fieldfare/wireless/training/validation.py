# SPDX-License-Identifier: Apache-2.0
"""What a training run measures on the way, on channels and networks of its own seeds."""

import torch
from torch import Tensor

from ..channels.drops import draw_networks
from ..channels.rayleigh import rayleigh
from ..networks.multipliers import know, listen, value
from ..networks.power import IcgnnPower
from ..networks.precoder import IcgnnPrecoder, precode
from ..signals.cell_free import CellFree, spectral_efficiency
from ..signals.max_min import max_min
from ..signals.rates import sum_rate
from ..signals.satisfaction import Profile
from ..signals.wmmse import wmmse
from .samples import draw_profiles, neighbours

SEED = 77_000_000
"""Far from the seeds of training, which are hashes of small numbers."""


KINDS = (
    ("6x25", 6, 25, None, 1),
    ("12x60 partly", 12, 60, 20, 1),
    ("20x100 partly", 20, 100, 20, 2),
    ("100x400 partly", 100, 400, 40, 16),
)
"""Of cell-free networks: name, users, APs, APs that serve a user, and how much fewer of them."""


class PrecoderValidation:
    """Sum rate over that of WMMSE, without the guard: fully loaded, part loaded, correlated.

    Args:
        count: channels of each kind and SNR of 0, 10 and 20 dB.
    """

    def __init__(self, count: int = 64) -> None:
        generator = torch.Generator().manual_seed(SEED)
        kinds = {
            "full": rayleigh((count, 9, 9), generator),
            "part": rayleigh((count, 6, 9), generator),
            "correlated": neighbours((count, 9, 18), generator),
        }
        self.cases: list[tuple[str, Tensor, float, float]] = []
        for name, H in kinds.items():
            for snr_db in (0, 10, 20):
                power = 10 ** (snr_db / 10)
                best = float(sum_rate(H, wmmse(H, power).W, 1.0).mean())
                self.cases.append((f"{name}_{snr_db}db", H, power, best))

    @torch.no_grad()
    def __call__(self, network: IcgnnPrecoder) -> dict[str, float]:
        ratios = {
            name: float(precode(network, H, power, guard=False).rate.sum(-1).mean()) / best
            for name, H, power, best in self.cases
        }
        return ratios | {"ratio": sum(ratios.values()) / len(ratios)}


class PowerValidation:
    """Least SE over the optimum of max-min, mean over networks of each kind.

    Of the max-min objective only; for the others the mean of what they maximise.

    Args:
        count: networks of each kind; an eighth of the large ones.
    """

    def __init__(self, count: int = 16) -> None:
        generator = torch.Generator().manual_seed(SEED)
        self.cases: list[tuple[str, CellFree, Profile, float]] = []
        for name, users, aps, serving, share in KINDS:
            drawn = draw_networks(
                max(1, count // share), users, aps, 4, serving_aps=serving, generator=generator
            )
            best = max_min(drawn, tolerance=1e-3, max_steps=300).mu.to(drawn.beta)
            least = spectral_efficiency(drawn, best).amin(-1)
            self.cases.append((name, drawn, draw_profiles(drawn, generator), float(least.mean())))

    @torch.no_grad()
    def __call__(self, network: IcgnnPower) -> dict[str, float]:
        found = {}
        for name, drawn, profile, best in self.cases:
            asked = profile if network.objective == "satisfaction" else None
            mu = network(drawn, asked)
            if network.objective == "max-min":
                least = spectral_efficiency(drawn, mu).amin(-1)
                found[name] = float(least.mean()) / best
            else:
                known = know(drawn, asked)
                reached = value(known, listen(known, mu), mu, network.objective)
                found[name] = float(reached.mean())
        return found

# SPDX-License-Identifier: Apache-2.0
"""What a training run measures on the way, on channels and networks of its own seeds."""

import torch
from torch import Tensor

from ..channels.drops import draw_networks
from ..channels.rayleigh import rayleigh
from ..networks.power import IcgnnPower, allocate
from ..networks.precoder import IcgnnPrecoder, precode
from ..signals.cell_free import CellFree, spectral_efficiency
from ..signals.rates import sum_rate
from ..signals.wmmse import wmmse
from .samples import neighbours

SEED = 77_000_000
"""Far from the seeds of training, which are hashes of small numbers."""


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
    """Least SE over that of 200 plain fixed-point steps, which end within 0.1 % of the optimum.

    Of the max-min objective only; for the others the mean of what they maximise.

    Args:
        count: networks of each kind.
    """

    def __init__(self, count: int = 16) -> None:
        generator = torch.Generator().manual_seed(SEED)
        kinds = (("all", 6, 25, None), ("partial", 9, 40, 10))
        steps = IcgnnPower(1, 200)
        torch.nn.init.ones_(steps.gates)
        self.cases: list[tuple[str, CellFree, float]] = []
        for name, users, aps, serving in kinds:
            drawn = draw_networks(
                count, users, aps, antennas=2, serving_aps=serving, generator=generator
            )
            best = spectral_efficiency(drawn, allocate(steps, drawn)).amin(-1)
            self.cases.append((name, drawn, float(best.mean())))

    def __call__(self, network: IcgnnPower) -> dict[str, float]:
        found = {}
        for name, drawn, best in self.cases:
            se = spectral_efficiency(drawn, allocate(network, drawn))
            if network.objective == "max-min":
                found[name] = float(se.amin(-1).mean()) / best
            else:
                chosen = se if network.objective == "sum-rate" else se.log()
                found[name] = float(chosen.sum(-1).mean())
        return found

# SPDX-License-Identifier: Apache-2.0
"""Measure every method and model of wl-precode and wl-power and keep them for `infer --within`.

    python benchmarks/wireless/variants.py precoding
    python benchmarks/wireless/variants.py power

Quality of precoding: sum rate as a share of WMMSE's, over Rayleigh channels of 8 users and 8
antennas and of 8 and 16, at 0, 10 and 20 dB. Quality of power: the lowest user's spectral
efficiency as a share of the max-min optimum's, over networks of 10 users and 50 access points. All
are drawn here, of a seed of their own. Operations of compiled loops are counted by formula: a solve
for 8 users and 8 antennas as often as a precoder makes one, a step of max-min as often as it takes
one. Processor time on one thread, code compiled before.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fieldfare.common.budget.collect import collect, operations
from fieldfare.common.budget.variants import SUFFIX
from fieldfare.common.weights import locate
from fieldfare.wireless import weights
from fieldfare.wireless.cell_free import options as cell_free
from fieldfare.wireless.cell_free import units as networks
from fieldfare.wireless.cell_free.learned import find_allocation
from fieldfare.wireless.channels.draw import draw_channels
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.networks.cost import network_macs
from fieldfare.wireless.networks.kernels import max_min as loops
from fieldfare.wireless.networks.models import POWER_TASK, PRECODING_TASK, load_precoder_network
from fieldfare.wireless.options import LEARNED
from fieldfare.wireless.precoding import options as precoding
from fieldfare.wireless.precoding import units as channels
from fieldfare.wireless.precoding.learned import find_precoder
from fieldfare.wireless.precoding.methods import exact_rate
from fieldfare.wireless.signals.cell_free import lowest_efficiency, spectral_efficiency
from fieldfare.wireless.signals.wmmse import wmmse

SEED = 6007
COUNT = 200
SHAPES, SNR_DB = ((8, 8), (8, 16)), (0, 10, 20)
LAYERS = 6

Settings = dict[str, Any]


def network(refine: int, schedule: str) -> Settings:
    """The learned precoder one way."""
    return {
        "method": LEARNED,
        "model": precoding.DEFAULT_MODEL,
        "refine": refine,
        "schedule": schedule,
    }


PRECODERS: dict[str, Settings] = {
    **{name: {"method": name, "schedule": "best"} for name in ("mrt", "zf", "rzf")},
    **{name: {"method": name} for name in ("greedy", "wmmse")},
    "network": network(0, "network"),
    "network-refine1": network(1, "network"),
    "network-refine3": network(3, "network"),
    "best": network(0, "best"),
    "best-refine1": network(1, "best"),
    "best-refine3": network(3, "best"),
    "best-refine10": network(10, "best"),
}
ALLOCATIONS: dict[str, Settings] = {
    **{name: {"method": name} for name in ("equal", "fractional", "max-min")},
    "network": {"method": LEARNED, "model": cell_free.DEFAULT_MODEL},
}


def ratio_to_wmmse(settings: Settings) -> float:
    """Mean over shapes and powers of sum rate over WMMSE's."""
    found = []
    ways = {name: settings[name] for name in ("refine", "schedule") if name in settings}
    model = settings.get("model", precoding.DEFAULT_MODEL)
    precoder = find_precoder(settings["method"], model, precoding.PrecoderOptions(**ways))
    for (users, antennas), snr in ((shape, snr) for shape in SHAPES for snr in SNR_DB):
        H = draw_channels("rayleigh", COUNT, users, antennas, seed=SEED + antennas)
        power, noise = torch.full((COUNT,), 10.0 ** (snr / 10)), torch.ones(COUNT)
        best = find_precoder("wmmse", model, precoding.PrecoderOptions())(H, power, noise, None)
        ours = precoder(H, power, noise, None)
        rates = [exact_rate(H, each.W, noise).sum() for each in (ours, best)]
        found.append(float(rates[0] / rates[1]))
    return sum(found) / len(found)


def precoding_macs(settings: Settings) -> int:
    """Real multiply-accumulates of the unit's channels, by formula."""
    K, N = channels.USERS, channels.ANTENNAS
    solve = 4 * (2 * K * K * N + K**3 // 3)
    if settings["method"] == "wmmse":
        H = draw_channels("rayleigh", channels.CHANNELS, K, N, seed=0)
        count = float(
            wmmse(H, torch.tensor(channels.POWER), torch.tensor(1.0)).iterations.double().mean()
        )
        return round(channels.CHANNELS * count * solve)
    solves: float = {"mrt": 0.25, "greedy": K}.get(settings["method"], 1)
    if settings["method"] == LEARNED:
        loaded, _ = load_precoder_network(settings["model"])
        starts = 2 if settings["schedule"] == "best" else 1
        each = LAYERS + settings["refine"] + network_macs(loaded, K) / solve
        solves = 1 + starts * each + (K if starts == 2 else 0)
    return round(channels.CHANNELS * solves * solve)


def power_macs(settings: Settings) -> int:
    """Of the unit's networks: every step of max-min weighs K users' signals at L points with K."""
    K, L = networks.USERS, networks.APS
    if settings["method"] == LEARNED:
        return operations(networks.unit(settings))
    if settings["method"] != "max-min":
        return networks.NETWORKS * K * L
    steps: list[float] = []
    original = loops.max_min

    def noted(*given: Any) -> None:
        original(*given)
        *_, begin, end, _, _, each = given
        steps.append(float(each[begin:end].sum()))

    loops.max_min = noted
    try:
        networks.unit(settings)()
    finally:
        loops.max_min = original
    return round(sum(steps)) * K * K * L


def ratio_to_max_min(settings: Settings) -> float:
    """Mean lowest SE over that of max-min."""
    cells = draw_networks(
        COUNT,
        networks.USERS,
        networks.APS,
        networks.ANTENNAS,
        generator=torch.Generator().manual_seed(SEED),
    )

    def lowest(method: str, model: str) -> float:
        mu = find_allocation(method, model, cell_free.AllocationOptions())(cells)
        return float(lowest_efficiency(cells, spectral_efficiency(cells, mu)).mean())

    model = settings.get("model", cell_free.DEFAULT_MODEL)
    return lowest(settings["method"], model) / lowest("max-min", model)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=(PRECODING_TASK, POWER_TASK))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    precodes = options.task == PRECODING_TASK
    quality: Callable[[Settings], float] = ratio_to_wmmse if precodes else ratio_to_max_min
    unit = (
        f"{channels.CHANNELS} channels of {channels.USERS} users and {channels.ANTENNAS} antennas"
        if precodes
        else f"{networks.NETWORKS} networks of {networks.USERS} users and {networks.APS} APs"
    )
    metric = (
        f"share of WMMSE's sum rate on {COUNT} drawn channels"
        if precodes
        else f"share of the highest lowest SE on {COUNT} drawn networks"
    )
    found = collect(
        options.task,
        PRECODERS if precodes else ALLOCATIONS,
        unit=unit,
        metric=metric,
        quality=lambda settings: quality(dict(settings)),
        weights=lambda settings: (
            locate(settings["model"], options.task).stat().st_size if "model" in settings else 0
        ),
        macs=lambda settings: (precoding_macs if precodes else power_macs)(dict(settings)),
        repeats=options.repeats,
        digits=3 if precodes else 4,
    )
    found.write(Path(weights.__file__).parent / f"{options.task}{SUFFIX}")


if __name__ == "__main__":
    main()

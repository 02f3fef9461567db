# SPDX-License-Identifier: Apache-2.0
"""wl-power eval."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ...channels.drops import draw_networks
from ...channels.files import read_network
from ...channels.profiles import read_profile
from ...evaluation.choice import choose
from ...evaluation.tables import check_folder, publish
from ...networks.kernels.notice import told_of_compiling
from ...signals.cell_free import CellFree, lowest_efficiency, spectral_efficiency
from ...signals.satisfaction import satisfaction, spent
from ..learned import check_profile, find_allocation
from ..methods import batched
from ..options import CONES, METHODS, SATISFACTION, EvaluateOptions

LEAST_RATE = 1e-3
"""Of a user that counts as served, bits/s/Hz."""

DEFINITIONS = {
    "min_se": "mean over the networks of the lowest spectral efficiency of a user, bits/s/Hz",
    "se_p5": "5th percentile of the spectral efficiency over all users of all networks",
    "sum_se": "mean over the networks of the sum of the users' spectral efficiencies",
    "ratio_max_min": "mean over the networks of min_se divided by that of max-min, the "
    "optimum within 1e-6",
    "worst_ratio": "the lowest of those ratios",
    "users_at_0": "share of the users whose spectral efficiency is below 0.001 bits/s/Hz",
    "power": "power that is spent, over the limits of all access points",
    "satisfaction": "mean over the users of --profile, and over the networks, of their satisfaction"
    " (0.1 at the adequate spectral efficiency, 0.9 at the desired)",
}


def evaluate(sources: Sequence[Path], options: EvaluateOptions) -> None:
    """Compare allocations on files or drawn networks; write the reports where asked."""
    set_threads()
    check_folder(options.output)
    allocations = choose(
        options.methods or _methods(options),
        options.models,
        partial(find_allocation, options=options),
    )
    profile = None if options.profile is None else read_profile(options.profile)
    settings = list(_from_files(sources) if sources else _drawn(options))
    rows: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    shares: dict[str, np.ndarray] = {}
    with (
        told_of_compiling(quiet=options.quiet),
        Progress("compare", len(settings), unit="setting", quiet=options.quiet) as bar,
    ):
        for number, (name, network) in enumerate(settings, 1):
            if profile is not None and options.profile is not None:
                check_profile(options.profile, profile, network)
            mus = {method: allocation(network) for method, allocation in allocations.items()}
            found = {
                method: spectral_efficiency(network, mu).double() for method, mu in mus.items()
            }
            least = {method: lowest_efficiency(network, se) for method, se in found.items()}
            users, aps = network.beta.shape[-2:]
            place = {"networks": name, "users": users, "aps": aps}
            for row in _summarise(network, found):
                mu, se = mus[row["method"]], found[row["method"]]
                row["power"] = float(spent(network, mu).mean())
                if profile is not None:
                    each = satisfaction(se, profile) * profile.weight / profile.weight.sum()
                    row["satisfaction"] = float(each.sum(-1).mean())
                rows.append(place | row)
            for index in range(len(network.beta)):
                lowest = {method: float(se[index]) for method, se in least.items()}
                details.append(place | {"network": index} | lowest)
            shares = {method: np.asarray(se).ravel() for method, se in found.items()}
            bar.update(number)
    publish(
        rows,
        {"lowest_se": details},
        options,
        definitions=DEFINITIONS,
        draw=partial(_draw, shares=shares, name=settings[-1][0]),
    )


def _methods(options: EvaluateOptions) -> list[str]:
    without = {CONES} if options.profile else {CONES, SATISFACTION}
    return [name for name in METHODS if name not in without]


def _draw(folder: Path, shares: Mapping[str, np.ndarray], name: str) -> dict[str, Path]:
    from ...evaluation import pictures

    path = folder / "se_cdf.png"
    label = f"spectral efficiency of a user, bits/s/Hz ({name})"
    pictures.draw_distributions(path, shares, label)
    return {"cdf": path}


def _summarise(network: CellFree, found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    served = network.serving.any(-1)
    best = lowest_efficiency(network, found["max-min"]) if "max-min" in found else None
    rows = []
    for method, se in found.items():
        lowest = lowest_efficiency(network, se)
        ratio = None if best is None else lowest / best
        rows.append(
            {
                "method": method,
                "min_se": float(lowest.mean()),
                "se_p5": float(se[served].quantile(0.05)),
                "sum_se": float(se.sum(-1).mean()),
                "ratio_max_min": None if ratio is None else float(ratio.mean()),
                "worst_ratio": None if ratio is None else float(ratio.min()),
                "users_at_0": float((se < LEAST_RATE).double().mean()),
            }
        )
    return rows


def _from_files(sources: Sequence[Path]) -> Iterator[tuple[str, CellFree]]:
    for source in sources:
        yield source.stem, batched(read_network(source))


def _drawn(options: EvaluateOptions) -> Iterator[tuple[str, CellFree]]:
    for users, aps in options.sizes:
        network = draw_networks(
            options.count,
            users,
            aps,
            options.antennas,
            serving_aps=options.serving,
            generator=torch.Generator().manual_seed(options.seed),
        )
        yield f"{users} users, {aps} APs", network

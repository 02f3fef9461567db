# SPDX-License-Identifier: Apache-2.0
"""wl-power eval."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ...channels.drops import DropSettings, draw_networks
from ...channels.files import read_network
from ...channels.profiles import read_profile
from ...evaluation.choice import choose
from ...evaluation.tables import check_folder, publish
from ...networks.kernels.notice import told_of_compiling
from ...signals.cell_free import CellFree, lowest_efficiency
from ...signals.cooperation import Precoding
from ...signals.satisfaction import satisfaction, spent
from ..cooperation import check_powers, crossing, serve
from ..learned import check_profile, find_allocation
from ..methods import batched
from ..options import (
    CONES,
    FRACTIONAL,
    JOINT,
    MAXIMUM_RATIO,
    METHODS,
    SATISFACTION,
    EvaluateOptions,
)

LEAST_RATE = 1e-3
"""Of a user that counts as served, bits/s/Hz."""

DEFINITIONS = {
    "min_se": "mean over the networks of the lowest spectral efficiency of a user, bits/s/Hz",
    "se_p5": "5th percentile of the spectral efficiency over all users of all networks",
    "sum_se": "mean over the networks of the sum of the users' spectral efficiencies",
    "ratio_max_min": "mean over the networks of min_se divided by that of max-min with "
    "maximum ratio, the optimum within 1e-6",
    "worst_ratio": "the lowest of those ratios",
    "users_at_0": "share of the users whose spectral efficiency is below 0.001 bits/s/Hz",
    "power": "power that is spent, over the limits of all access points",
    "fronthaul_data": "complex numbers over all fronthaul links in a coherence block: the data"
    " of served users to every access point, or with p-mmse what every antenna transmits",
    "fronthaul_pilots": "the same of the pilots that are heard, for what is estimated elsewhere",
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
    compared = [
        (precoding, method, allocation)
        for precoding in dict.fromkeys(options.precodings)
        for method, allocation in allocations.items()
        if precoding != JOINT or method == FRACTIONAL
    ]
    if JOINT in options.precodings and FRACTIONAL not in allocations:
        check_powers(JOINT, next(iter(allocations)))
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
            served, loads = {}, {}
            for precoding, method, allocation in compared:
                label = method if precoding == MAXIMUM_RATIO else f"{precoding}, {method}"
                kind = cast(Precoding, precoding)
                served[label] = serve(network, allocation(network), kind, options, options.seed)
                loads[label] = (precoding, method, crossing(network, kind, options).mean(0))
            found = {label: each.se.double() for label, each in served.items()}
            least = {label: lowest_efficiency(network, se) for label, se in found.items()}
            users, aps = network.beta.shape[-2:]
            place = {"networks": name, "users": users, "aps": aps}
            for label, row in _summarise(network, found).items():
                precoding, method, load = loads[label]
                row |= {"power": float(spent(network, served[label].mu).mean())}
                row |= {"fronthaul_data": float(load[0]), "fronthaul_pilots": float(load[1])}
                if profile is not None:
                    each = satisfaction(found[label], profile) * profile.weight
                    row["satisfaction"] = float((each.sum(-1) / profile.weight.sum()).mean())
                rows.append(place | {"precoding": precoding, "method": method} | row)
            for index in range(len(network.beta)):
                lowest = {label: float(se[index]) for label, se in least.items()}
                details.append(place | {"network": index} | lowest)
            shares = {label: np.asarray(se).ravel() for label, se in found.items()}
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


def _summarise(network: CellFree, found: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    served = network.serving.any(-1)
    best = lowest_efficiency(network, found["max-min"]) if "max-min" in found else None
    rows = {}
    for label, se in found.items():
        lowest = lowest_efficiency(network, se)
        ratio = None if best is None else lowest / best
        rows[label] = {
            "min_se": float(lowest.mean()),
            "se_p5": float(se[served].quantile(0.05)),
            "sum_se": float(se.sum(-1).mean()),
            "ratio_max_min": None if ratio is None else float(ratio.mean()),
            "worst_ratio": None if ratio is None else float(ratio.min()),
            "users_at_0": float((se < LEAST_RATE).double().mean()),
        }
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
            clusters=options.clusters,
            settings=DropSettings(pilots=options.pilots),
            generator=torch.Generator().manual_seed(options.seed),
        )
        yield f"{users} users, {aps} APs", network

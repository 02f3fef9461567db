# SPDX-License-Identifier: Apache-2.0
"""wl-power infer."""

import operator
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ... import inference
from ...channels.files import read_network
from ...channels.profiles import read_profile
from ...networks.models import POWER_TASK
from ...signals.cell_free import CellFree, lowest_efficiency, spectral_efficiency
from ..learned import find_allocation
from ..methods import Allocation, batched
from ..options import InferOptions


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Read networks, allocate, write mu and rates: of one file, or of many into a folder."""
    if options.profile is not None:
        read_profile(options.profile)  # a wrong one is told before work starts
    task = inference.Task(
        name=POWER_TASK,
        noun="files of networks",
        result="mu",
        read=partial(read_network, power=options.power, antennas=options.antennas),
        sizes=_sizes,
        first=_first,
        load=partial(_load, options),
    )
    inference.infer(inputs, options, task)


def _sizes(network: CellFree) -> dict[str, int]:
    users, aps = network.beta.shape[-2:]
    return {"networks": network.beta[..., 0, 0].numel(), "users": users, "access_points": aps}


def _first(network: CellFree, count: int) -> CellFree:
    return batched(network).map(operator.itemgetter(slice(count)))


def _load(options: InferOptions) -> inference.Method[CellFree]:
    return partial(_allocate, find_allocation(options.method, options.model, options))


def _allocate(allocation: Allocation, network: CellFree) -> inference.Result:
    mu = allocation(batched(network)).reshape(network.beta.shape)
    se = spectral_efficiency(network, mu)
    lowest, total = float(lowest_efficiency(network, se).mean()), float(se.sum(-1).mean())
    return inference.Result(
        arrays={"mu": mu, "se": se},
        numbers={
            "networks": se[..., 0].numel(),
            "mean_min_se": lowest,
            "mean_sum_se": total,
        },
        text=f"mean lowest SE {lowest:.4g}, mean sum SE {total:.4g} bits/s/Hz",
    )

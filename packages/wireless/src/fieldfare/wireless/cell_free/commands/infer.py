# SPDX-License-Identifier: Apache-2.0
"""wl-power infer."""

import operator
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from ... import inference
from ...channels.files import read_network
from ...channels.profiles import read_profile
from ...networks.models import POWER_TASK
from ...signals.cell_free import CellFree, lowest_efficiency
from ...signals.cooperation import Precoding
from ..cooperation import check_powers, crossing, serve
from ..learned import find_allocation
from ..methods import Allocation, batched
from ..options import InferOptions


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Read networks, allocate, write mu and rates: of one file, or of many into a folder."""
    if options.profile is not None:
        read_profile(options.profile)  # a wrong one is told before work starts
    check_powers(options.precoding, options.method)
    inference.infer(inputs, options, _task)


def _task(options: InferOptions) -> inference.Task[CellFree]:
    return inference.Task(
        name=POWER_TASK,
        noun="files of networks",
        result="mu",
        read=partial(read_network, power=options.power, antennas=options.antennas),
        sizes=_sizes,
        first=_first,
        load=partial(_load, options),
    )


def _sizes(network: CellFree) -> dict[str, int]:
    users, aps = network.beta.shape[-2:]
    return {"networks": network.beta[..., 0, 0].numel(), "users": users, "access_points": aps}


def _first(network: CellFree, count: int) -> CellFree:
    return batched(network).map(operator.itemgetter(slice(count)))


def _load(options: InferOptions) -> inference.Method[CellFree]:
    return partial(_allocate, find_allocation(options.method, options.model, options), options)


def _allocate(allocation: Allocation, options: InferOptions, network: CellFree) -> inference.Result:
    cells, shape = batched(network), network.beta.shape
    precoding = cast(Precoding, options.precoding)
    mu, se = serve(cells, allocation(cells), precoding, options, options.seed)
    load = crossing(cells, precoding, options).mean(0)
    lowest, total = float(lowest_efficiency(cells, se).mean()), float(se.sum(-1).mean())
    return inference.Result(
        arrays={"mu": mu.reshape(shape), "se": se.reshape(shape[:-1])},
        numbers={
            "networks": len(se),
            "mean_min_se": lowest,
            "mean_sum_se": total,
            "fronthaul_data": float(load[0]),
            "fronthaul_pilots": float(load[1]),
        },
        text=f"mean lowest SE {lowest:.4g}, mean sum SE {total:.4g} bits/s/Hz",
    )

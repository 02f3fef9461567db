# SPDX-License-Identifier: Apache-2.0
"""wl-power infer and eval."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldfare.common import console, files
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ..channels.drops import draw_networks
from ..channels.files import read_network, write_arrays
from ..evaluation import pictures
from ..evaluation.tables import write_reports
from ..signals.cell_free import CellFree, spectral_efficiency
from .methods import BASELINES, LEARNED, Allocation, baseline, batched, in_batches

DEFINITIONS = {
    "min_se": "mean over the networks of the lowest spectral efficiency of a user, bits/s/Hz",
    "se_p5": "5th percentile of the spectral efficiency over all users of all networks",
    "sum_se": "mean over the networks of the sum of the users' spectral efficiencies",
    "ratio_max_min": "mean over the networks of min_se divided by that of the max-min optimum "
    "(second-order cone programs)",
    "worst_ratio": "the lowest of those ratios",
}


def infer(source: Path, output: Path, options: Mapping[str, Any]) -> None:
    """Read networks, allocate, write mu and spectral efficiencies."""
    set_threads()
    if output.suffix != ".npz":
        raise InputError(f"{output}: cannot be written; give a name in .npz")
    files.check_output(output, overwrite=options["overwrite"])
    network = read_network(source, power=options["power"], antennas=options["antennas"])
    method = options["method"]
    allocation = _allocations([method], [options["model"]], options)[method]
    mu = allocation(batched(network)).reshape(network.beta.shape)
    se = spectral_efficiency(network, mu)
    write_arrays(output, {"mu": mu, "se": se})
    result = {
        "output": output,
        "method": method,
        "networks": se[..., 0].numel(),
        "mean_min_se": float(se.amin(-1).mean()),
        "mean_sum_se": float(se.sum(-1).mean()),
    }
    text = (
        f"mean lowest SE {result['mean_min_se']:.4g}, mean sum SE {result['mean_sum_se']:.4g} "
        f"bits/s/Hz\n{output}"
    )
    console.emit(result, as_json=options["as_json"], text=text)


def evaluate(sources: Sequence[Path], options: Mapping[str, Any]) -> None:
    """Compare allocations on files or drawn networks; write the reports where asked."""
    set_threads()
    output = options["output"]
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder for the reports")
    names = list(dict.fromkeys(options["methods"])) or [*BASELINES, LEARNED]
    allocations = _allocations(names, options["model"], options)
    settings = list(_from_files(sources) if sources else _drawn(options))
    rows: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    shares: dict[str, np.ndarray] = {}
    with Progress("compare", len(settings), unit="setting", quiet=options["quiet"]) as bar:
        for number, (name, network) in enumerate(settings, 1):
            found = {
                method: spectral_efficiency(network, allocation(network)).double()
                for method, allocation in allocations.items()
            }
            users, aps = network.beta.shape[-2:]
            place = {"networks": name, "users": users, "aps": aps}
            rows += [place | row for row in _summarise(found)]
            for index in range(len(network.beta)):
                lowest = {method: float(se[index].min()) for method, se in found.items()}
                details.append(place | {"network": index} | lowest)
            shares = {method: np.asarray(se).ravel() for method, se in found.items()}
            bar.update(number)
    made: dict[str, Path] = {}
    if output is not None:
        made = write_reports(output, rows, {"lowest_se": details}, definitions=DEFINITIONS)
        made["cdf"] = output / "se_cdf.png"
        pictures.draw_distributions(
            made["cdf"], shares, f"spectral efficiency of a user, bits/s/Hz ({settings[-1][0]})"
        )
    lines = [console.table(rows), ""]
    lines += [f"{name}: {text}" for name, text in DEFINITIONS.items()]
    lines += [str(path) for path in made.values()]
    result = {"rows": rows, "definitions": DEFINITIONS, "written": made}
    console.emit(result, as_json=options["as_json"], text="\n".join(lines))


def _summarise(found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    best = found["max-min"].amin(-1) if "max-min" in found else None
    rows = []
    for method, se in found.items():
        lowest = se.amin(-1)
        ratio = None if best is None else lowest / best
        rows.append(
            {
                "method": method,
                "min_se": float(lowest.mean()),
                "se_p5": float(se.flatten().quantile(0.05)),
                "sum_se": float(se.sum(-1).mean()),
                "ratio_max_min": None if ratio is None else float(ratio.mean()),
                "worst_ratio": None if ratio is None else float(ratio.min()),
            }
        )
    return rows


def _allocations(
    methods: Sequence[str], models: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Allocation]:
    found: dict[str, Allocation] = {}
    for name in methods:
        if name != LEARNED:
            found[name] = in_batches(baseline(name), options["batch"])
            continue
        from .learned import load_allocation

        for model in models:
            learned = load_allocation(model, device=options["device"])
            label = LEARNED if len(models) == 1 else f"{LEARNED}:{Path(model).stem}"
            found[label] = in_batches(learned, options["batch"])
    return found


def _from_files(sources: Sequence[Path]) -> Iterator[tuple[str, CellFree]]:
    for source in sources:
        yield source.stem, batched(read_network(source))


def _drawn(options: Mapping[str, Any]) -> Iterator[tuple[str, CellFree]]:
    for users, aps in options["sizes"]:
        network = draw_networks(
            options["count"],
            users,
            aps,
            options["antennas"],
            serving_aps=options["serving"],
            generator=torch.Generator().manual_seed(options["seed"]),
        )
        yield f"{users} users, {aps} APs", network

# SPDX-License-Identifier: Apache-2.0
"""How much faster EDiffSR runs here than in its plain formulation; prints ratios, writes a CSV.

    python benchmarks/remote_sensing/ediffsr_speed.py --csv ediffsr_speed.csv

One thread, one process, the two of a pair in turn: trust the ratios, not the seconds. Three
questions are answered:

    step    one network call at 256 x 256: plain formulation against fast path
    solver  one 64 -> 256 tile with the published network: 100 published SDE steps in the plain
            formulation against 20 multistep solver steps by the fast path
    tile    the same 100 plain steps against the packaged default model with its default steps
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from plain import plain_form
from torch import Tensor

from fieldfare.common.efficiency import bench_pair
from fieldfare.remote_sensing.super_resolution.networks.diffusion import MeanRevertingSDE
from fieldfare.remote_sensing.super_resolution.networks.ediffsr import EDiffSR
from fieldfare.remote_sensing.super_resolution.networks.fast import FastEDiffSR
from fieldfare.remote_sensing.super_resolution.networks.model import enlarge, load_model
from fieldfare.remote_sensing.super_resolution.sampling.noise import noise_field
from fieldfare.remote_sensing.super_resolution.sampling.solvers import published, sample

LOW_SIDE = 64
TOLERANCE = 2e-6
PUBLISHED_STEPS = 100
SOLVER_STEPS = 20
MEASURED_SOLVER_STEPS = 2

Predict = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Row:
    """One comparison; seconds are medians, extrapolated as `note` says."""

    name: str
    baseline: str
    ours: str
    baseline_s: float
    ours_s: float
    ratio: float
    ratio_iqr: float
    note: str


def published_network(seed: int = 0) -> EDiffSR:
    """The published shape, every tensor random: beta and gamma, too, which begin at zero."""
    torch.manual_seed(seed)
    network = EDiffSR().eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith((".beta", ".gamma")):
            parameter.normal_(0, 0.1)
    return network


def relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def noise(like: Tensor) -> Callable[[int], Tensor]:
    """Streams of our noise field, from pixel (0, 0)."""
    _, channels, height, width = like.shape
    return lambda stream: torch.from_numpy(
        noise_field(0, stream, channels, (0, height), (0, width))[None]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="ediffsr_small_x4", help="name or weight file; none leaves `tile` out"
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed pairs of each comparison")
    parser.add_argument("--csv", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = compare(arguments.model, arguments.repeats)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


@torch.inference_mode()
def compare(model_name: str, repeats: int) -> list[Row]:
    """Measure and print one row after the other."""
    network = published_network()
    plain, fast = plain_form(network), FastEDiffSR(network)
    rng = np.random.default_rng(0)
    low = torch.from_numpy(rng.random((1, 3, LOW_SIDE, LOW_SIDE), dtype=np.float32))
    mu = enlarge(low, network.config.scale)
    sde = MeanRevertingSDE()
    x = mu + sde.max_sigma * noise(mu)(0)

    difference = relative_difference(plain(x, mu, torch.tensor([50])), fast(x, mu, 50.0))
    print(f"plain and fast outputs differ by {difference:.1e} of the largest value", flush=True)
    if difference > TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE}: the comparison would mean nothing")

    rows: list[Row] = []

    def add(
        name: str,
        baseline: tuple[str, Callable[[], object], float],
        ours: tuple[str, Callable[[], object], float],
        note: str,
    ) -> None:
        """Time a pair; each is (label, call, by how much to multiply its time)."""
        pair = bench_pair(baseline[1], ours[1], repeats=repeats, warmup=1)
        stretch = baseline[2] / ours[2]
        rows.append(
            Row(
                name,
                baseline[0],
                ours[0],
                pair.a.median_s * baseline[2],
                pair.b.median_s * ours[2],
                pair.ratio * stretch,
                pair.ratio_iqr * stretch,
                note,
            )
        )
        row = rows[-1]
        print(
            f"{row.name:7}{row.ratio:8.2f}x (quartiles {row.ratio_iqr:.2f} apart)  "
            f"{row.baseline} {row.baseline_s:.2f} s, {row.ours} {row.ours_s:.2f} s. {row.note}",
            flush=True,
        )

    def plain_step() -> Tensor:
        """One published SDE step, its noise drawn as published."""
        return published(
            lambda x, t: plain(x, mu, torch.tensor([t])),
            x,
            mu,
            sde,
            lambda _: torch.randn_like(x),
            "sde",
            times=range(50, 49, -1),
        )

    def solve(predict: Predict, sde: MeanRevertingSDE, prediction: str, steps: int) -> Tensor:
        return sample(
            lambda x, t: predict(x, mu, t),
            mu,
            sde,
            noise(mu),
            prediction=prediction,
            steps=steps,
        )

    add(
        "step",
        ("plain", lambda: plain(x, mu, torch.tensor([50])), 1),
        ("fast", lambda: fast(x, mu, 50.0), 1),
        f"Published network, 256 x 256, {repeats} pairs.",
    )
    hundred = f"{PUBLISHED_STEPS} plain SDE steps"
    add(
        "solver",
        (hundred, plain_step, PUBLISHED_STEPS),
        (
            f"{SOLVER_STEPS} fast solver steps",
            lambda: solve(fast, sde, "noise", MEASURED_SOLVER_STEPS),
            SOLVER_STEPS / MEASURED_SOLVER_STEPS,
        ),
        f"Published network, 64 -> 256; extrapolated from the median of {repeats} pairs of 1 SDE "
        f"step and {MEASURED_SOLVER_STEPS} solver steps.",
    )
    if model_name != "none":
        model, card = load_model(model_name)
        config = model.config
        own = FastEDiffSR(model.eval().requires_grad_(False).network)
        add(
            "tile",
            (hundred, plain_step, PUBLISHED_STEPS),
            (
                f"{card.name}, {config.default_steps} steps",
                lambda: solve(own, model.sde, config.prediction, config.default_steps),
                1,
            ),
            f"64 -> 256; the {PUBLISHED_STEPS} steps extrapolated from the median of {repeats} "
            "pairs with 1 SDE step, ours in full.",
        )
    return rows


if __name__ == "__main__":
    main()

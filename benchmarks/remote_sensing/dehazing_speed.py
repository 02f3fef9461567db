# SPDX-License-Identifier: Apache-2.0
"""How much faster DEA-Net runs folded; prints ratios, writes a CSV.

    python benchmarks/remote_sensing/dehazing_speed.py --csv dehazing_speed.csv

One thread, one process, the two of a pair in turn: trust the ratios, not the seconds. The network
that is run is compared with

    five       each detail-enhanced convolution as five convolutions, as the paper draws it
    training   its five kernels added up for one convolution, at every call
    folded     the kernels added up once, the attention as published
"""

import argparse
import copy
import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fieldfare.common import console
from fieldfare.common.blocks import DetailConv, convolve
from fieldfare.common.blocks.fuse import fuse
from fieldfare.common.efficiency import bench_pair
from fieldfare.remote_sensing.dehazing.networks.deanet import DEANet
from fieldfare.remote_sensing.dehazing.networks.fast import hastened
from fieldfare.remote_sensing.dehazing.networks.model import PRESETS

TOLERANCE = 2e-6


class FiveBranches(nn.Module):
    """A detail-enhanced convolution that does all five of its convolutions."""

    def __init__(self, detail: DetailConv) -> None:
        super().__init__()
        self.kernels, self.bias = [k.detach() for k in detail.kernels()], detail.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        found = convolve(x, self.kernels[0], self.bias[0], padding=1)
        for kernel, bias in zip(self.kernels[1:], self.bias[1:], strict=True):
            found = found + convolve(x, kernel, bias, padding=1)
        return found


@dataclass(frozen=True)
class Row:
    """One comparison; seconds are medians."""

    network: str
    side: int
    baseline: str
    baseline_s: float
    run_s: float
    ratio: float
    ratio_iqr: float
    difference: float


def five_branches(model: DEANet) -> nn.Module:
    """The network with every branch done by itself."""
    unfolded = copy.deepcopy(model)
    for parent in list(unfolded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DetailConv):
                setattr(parent, name, FiveBranches(child))
    return unfolded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, side in (("small", 256), ("published", 128)):
        torch.manual_seed(0)
        model = DEANet(PRESETS[name]).eval().requires_grad_(False)
        run = hastened(model).to(memory_format=torch.channels_last)
        forms = {"five": five_branches(model), "training": model, "folded": fuse(model)}
        x = torch.rand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
        for label, form in forms.items():
            form = form.to(memory_format=torch.channels_last)
            with torch.inference_mode():
                wanted = form(x)
                difference = float((run(x) - wanted).abs().max() / (1 + wanted.abs().max()))
                if difference > TOLERANCE:
                    raise SystemExit(f"{name}, {label}: differs by {difference:.1e}")
                pair = bench_pair(form, run, x, repeats=options.repeats)
            rows.append(
                Row(
                    name,
                    side,
                    label,
                    pair.a.median_s,
                    pair.b.median_s,
                    pair.ratio,
                    pair.ratio_iqr,
                    difference,
                )
            )
    print(console.table([asdict(row) for row in rows]))
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, asdict(rows[0]))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    main()

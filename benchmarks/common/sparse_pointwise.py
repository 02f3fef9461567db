# SPDX-License-Identifier: Apache-2.0
"""The sparse 1x1 convolution beside torch's dense one, for single layers and a whole network.

    python benchmarks/common/sparse_pointwise.py --rounds 60 --csv sparse.csv

Layers: microseconds, the shortest of the rounds, which take all forms in turn. Dense is the best of
a convolution in either memory format and a matrix product; the ratio is dense / sparse. Network:
timm's MobileNetV1, masks by size, as `sparsify` leaves it; milliseconds of dense in either memory
format. One thread. Random weights and inputs: times do not depend on them.
"""

import argparse
import copy
import csv
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import nn

from fieldfare.common.blocks.fuse import fuse
from fieldfare.common.blocks.sparse_pointwise import SparsePointwise, sparsify
from fieldfare.common.slim.prune import mask_smallest, prunable

LAYERS = (  # inputs, outputs, side of the image
    (128, 128, 56),
    (256, 256, 28),
    (512, 512, 14),
    (1024, 1024, 7),
    (144, 24, 56),
    (576, 96, 14),
    (16, 96, 112),
    (128, 128, 64),
)
SPARSITIES = (0.5, 0.8, 0.9)


def shortest(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each call."""
    best = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number > 1:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def layer(inputs: int, outputs: int, side: int, rounds: int) -> list[dict[str, object]]:
    """A row for each sparsity."""
    conv = nn.Conv2d(inputs, outputs, 1)
    x = torch.randn(1, inputs, side, side)
    last = torch.channels_last
    conv_last, x_last = copy.deepcopy(conv).to(memory_format=last), x.to(memory_format=last)
    matrix, columns = conv.weight.detach().flatten(1), x.flatten(2)[0]
    calls: dict[str, Callable[[], object]] = {
        "dense": lambda: conv(x),
        "dense, channels last": lambda: conv_last(x_last),
        "dense, matrix": lambda: matrix @ columns,
    }
    for sparsity in SPARSITIES:
        pruned = copy.deepcopy(conv)
        pruned.weight.data.mul_(mask_smallest(conv.weight, sparsity))
        for packed in (False, True):
            sparse = SparsePointwise(pruned, packed=packed)
            calls[f"{sparsity} {packed}"] = lambda sparse=sparse: sparse(x)  # type: ignore[misc]
    best = shortest(calls, rounds)
    dense = min(value for name, value in best.items() if name.startswith("dense"))
    rows: list[dict[str, object]] = []
    for sparsity in SPARSITIES:
        direct, packed_time = best[f"{sparsity} False"], best[f"{sparsity} True"]
        rows.append(
            {
                "layer": f"{inputs}->{outputs} @{side}",
                "sparsity": sparsity,
                "dense_us": round(dense * 1e6),
                "direct_us": round(direct * 1e6),
                "packed_us": round(packed_time * 1e6),
                "ratio": round(dense / min(direct, packed_time), 2),
            }
        )
    return rows


def network(side: int, sparsity: float, rounds: int) -> dict[str, object]:
    """MobileNetV1 dense and as sparsify leaves it."""
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv1_100").eval()
    for weight in (module.weight for module in prunable(model).values()):
        weight.data.mul_(mask_smallest(weight, sparsity))
    dense = fuse(model)
    x = torch.randn(1, 3, side, side)
    form = torch.channels_last
    last, x_last = copy.deepcopy(dense).to(memory_format=form), x.to(memory_format=form)
    sparse = copy.deepcopy(dense)
    choices = sparsify(sparse, x)
    expected = dense(x)
    difference = float((sparse(x) - expected).abs().max() / expected.abs().max())
    best = shortest(
        {"dense": lambda: dense(x), "last": lambda: last(x_last), "sparse": lambda: sparse(x)},
        rounds,
    )
    return {
        "side": side,
        "sparsity": sparsity,
        "dense_ms": round(best["dense"] * 1e3, 1),
        "dense_channels_last_ms": round(best["last"] * 1e3, 1),
        "sparse_ms": round(best["sparse"] * 1e3, 1),
        "ratio": round(min(best["dense"], best["last"]) / best["sparse"], 2),
        "sparse_layers": f"{sum(choice.used for choice in choices)}/{len(choices)}",
        "relative_difference": f"{difference:.1e}",
    }


def show(rows: list[dict[str, object]], path: Path | None) -> None:
    """Print, and append to a CSV file."""
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if path is not None:
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--side", type=int, nargs="*", default=[224], help="of the network's image")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        rows = [row for size in LAYERS for row in layer(*size, options.rounds)]
        show(rows, options.csv)
        show(
            [
                network(side, sparsity, max(3, options.rounds // 6))
                for side in options.side
                for sparsity in (0.8, 0.9)
            ],
            options.csv,
        )


if __name__ == "__main__":
    main()

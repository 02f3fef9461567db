# SPDX-License-Identifier: Apache-2.0
"""Weights between two trainings of one network (Wortsman et al. 2022, arXiv 2109.01903, eq. 1).

    python benchmarks/common/mean_of_weights.py before.safetensors after.safetensors \\
        --share 0.5 -o between.safetensors

The second must have been trained on from the first, or both from one. Whole numbers, such as
counts of batches, and the card are of the first; what a file knows beside its weights is left out.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from fieldfare.common.weights import load_model_file, save_model_file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="Of the second.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    card, first = load_model_file(options.first)
    _, second = load_model_file(options.second)
    if {k: t.shape for k, t in first.items()} != {k: t.shape for k, t in second.items()}:
        parser.error("the files hold other networks")
    between = {
        name: torch.lerp(tensor.float(), second[name].float(), options.share)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }
    save_model_file(options.output, between, dataclasses.replace(card, metrics=()))


if __name__ == "__main__":
    main()

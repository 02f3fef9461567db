# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 with groups of G channels in place of depthwise convolutions: cost and speed.

    python benchmarks/common/group_size.py --rounds 20

Milliseconds for one image of 224 pixels, one thread, the shortest of the rounds, which take all
sizes in turn; G = 1 is depthwise. Random weights: the time does not depend on them.
"""

import argparse
import time

import timm
import torch

from fieldfare.common.blocks import regroup
from fieldfare.common.blocks.fuse import fuse
from fieldfare.common.efficiency import cost

SIZES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(1, 3, 224, 224).to(memory_format=torch.channels_last)
    models = {}
    for size in SIZES:
        model = timm.create_model("mobilenetv1_100").eval()
        regroup(model, size)
        models[size] = fuse(model).to(memory_format=torch.channels_last)
    best = dict.fromkeys(SIZES, float("inf"))
    with torch.inference_mode():
        for number in range(options.rounds + 1):
            for size, model in models.items():
                start = time.perf_counter()
                model(x)
                if number:
                    best[size] = min(best[size], time.perf_counter() - start)
    for size, model in models.items():
        macs = cost(model, (1, 3, 224, 224)).macs
        rate = macs / best[size] / 1e9
        print(f"G {size}  {macs / 1e6:.0f} M MACs  {best[size] * 1e3:.1f} ms  {rate:.1f} G MACs/s")


if __name__ == "__main__":
    main()

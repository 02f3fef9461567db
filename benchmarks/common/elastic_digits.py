# SPDX-License-Identifier: Apache-2.0
"""One elastic network against its smallest and largest networks trained alone, on 8x8 digits.

Usage: python benchmarks/common/elastic_digits.py [--steps 600] [--seeds 3]
       [--smallest | --sandwich]

The elastic network trains in the published stages, or by the sandwich rule; the others for as many
steps of one network each. Steps of several networks count once, as in the published schedule.
Digits of scikit-learn (1797 images, UCI ML hand-written digits): the first 1200 train and
recalibrate, the last 597 test.
Nothing is chosen on either. A row: smallest elastic, alone, largest elastic, alone.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.efficiency import cost
from fieldfare.common.elastic.genes import Space
from fieldfare.common.elastic.mobilenet import (
    Layout,
    MobileClassifier,
    Stage,
    elastic_classifier,
    sort_channels,
    space,
)
from fieldfare.common.elastic.recalibrate import recalibrate
from fieldfare.common.elastic.sandwich import SandwichLoss
from fieldfare.common.elastic.shrink import ShrinkingLoss, published_stages

LAYOUT = Layout(1, 2, 0.5, (Stage(32, 1, "relu"), Stage(64, 2, "hard_swish", "hard_se")))
TRAIN, BATCH, RATE = 1200, 64, 2e-3


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    return x, torch.tensor(data.target)


def train(net, x, y, steps, rate, loss, seed) -> None:
    """Adam, one cycle of a cosine."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for _ in range(steps):
        index = torch.randint(TRAIN, (BATCH,))
        optimizer.zero_grad()
        loss(net, (x[index], y[index])).backward()
        optimizer.step()
        schedule.step()


def plain(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of the test images, after recalibration on training images."""
    recalibrate(net, x[:TRAIN].split(200))
    return float((net.eval()(x[TRAIN:]).argmax(1) == y[TRAIN:]).double().mean())


def elastic(genes: Space, x: Tensor, y: Tensor, steps: int, seed: int, smallest: bool) -> nn.Module:
    torch.manual_seed(seed)
    net = elastic_classifier(genes, LAYOUT, 10)
    teacher = None
    for stage in published_stages(genes):
        if stage.sort is not None:
            sort_channels(net, stage.sort)
        loss = ShrinkingLoss(
            stage, lambda out, b: F.cross_entropy(out, b[1]), teacher=teacher, smallest=smallest
        )
        rate = RATE if teacher is None else RATE / 4
        train(net, x, y, max(1, round(steps * stage.share)), rate, loss, seed)
        if teacher is None:
            teacher = net.extract(genes.largest()).train().requires_grad_(False)
    return net


def sandwiched(genes: Space, x: Tensor, y: Tensor, steps: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = elastic_classifier(genes, LAYOUT, 10)
    train(net, x, y, steps, RATE, SandwichLoss(lambda out, b: F.cross_entropy(out, b[1])), seed)
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smallest", action="store_true", help="in every step, the first draw")
    parser.add_argument("--sandwich", action="store_true", help="all sizes from the first step")
    options = parser.parse_args()
    x, y = digits()
    genes = space(2, depths=(1, 2), kernels=(3, 5), expansions=(3, 4, 6))
    ends = {"smallest": genes.smallest(), "largest": genes.largest()}
    macs = {n: cost(MobileClassifier(c, LAYOUT, 10), (1, 1, 8, 8)).macs for n, c in ends.items()}
    print(f"{genes.count()} networks, {macs['smallest']} to {macs['largest']} MACs a digit")
    rows = []
    for seed in range(options.seeds):
        start = time.process_time()
        if options.sandwich:
            net = sandwiched(genes, x, y, options.steps, seed)
        else:
            net = elastic(genes, x, y, options.steps, seed, options.smallest)
        row = []
        for choice in ends.values():
            own = accuracy(net.extract(choice), x, y)
            torch.manual_seed(seed)
            alone = MobileClassifier(choice, LAYOUT, 10)
            train(alone, x, y, options.steps, RATE, plain, seed)
            row += [own, accuracy(alone, x, y)]
        rows.append(row)
        seconds = time.process_time() - start
        shown = " ".join(f"{value:.4f}" for value in row)
        print(f"seed {seed}: {shown} ({seconds:.0f} s)", flush=True)
    mean = np.mean(rows, axis=0)
    for index, name in enumerate(ends):
        own, alone = mean[2 * index : 2 * index + 2]
        print(f"{name}: elastic {own:.4f}, alone {alone:.4f}, difference {own - alone:+.4f}")


if __name__ == "__main__":
    main()

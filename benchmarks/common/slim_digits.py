# SPDX-License-Identifier: Apache-2.0
"""Exits, AP and adapters on 8x8 digits: accuracy, operations and dead units.

Usage: python benchmarks/common/slim_digits.py [exits|ap|adapters ...] [--seeds 3]

Digits of scikit-learn (1797 images, UCI ML hand-written digits): 900 train, 300 validate (the
gates' weights), 597 test. Nothing is chosen on the test images.

exits: a network of six blocks with two exits; for each trade the share of operations and accuracy
    of the learnt gates, beside one threshold on the largest probability that costs as much.
ap: a network of two hidden layers pruned to half of its weights in ten cycles, with and without AP:
    weights left, accuracy, zeros among the ReLUs' outputs (static: always; dynamic: the rest).
adapters: a network trained on images turned by 90 degrees, adapted to upright ones by rank, beside
    training all of it: numbers trained, accuracy.
"""

import argparse
import copy

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.slim import ap
from fieldfare.common.slim.adapters import adapt, fuse_adapters
from fieldfare.common.slim.anchors import SequentialAnchor
from fieldfare.common.slim.exit_net import ExitNet
from fieldfare.common.slim.exit_training import Samples, fit_exits

TRAIN, VALIDATE, BATCH = 900, 1200, 64


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    return x, torch.tensor(data.target)


def train(net: nn.Module, x: Tensor, y: Tensor, steps: int, masks: ap.Masks | None = None) -> None:
    """Adam; what the masks drop stays zero."""
    parameters = {n: p for n, p in net.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(parameters.values(), 2e-3)
    net.train()
    for _ in range(steps):
        index = torch.randint(TRAIN, (BATCH,))
        optimizer.zero_grad()
        F.cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()
        with torch.no_grad():
            for name, mask in (masks or {}).items():
                parameters[name].mul_(mask)


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((net.eval()(x[VALIDATE:]).argmax(1) == y[VALIDATE:]).double().mean())


def exits(seed: int) -> dict[str, list[float]]:
    torch.manual_seed(seed)
    x, y = digits()
    blocks = [
        nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        for _ in range(6)
    ]
    end = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10))
    anchor = SequentialAnchor(nn.Conv2d(1, 24, 3, padding=1), blocks, end)
    whole = nn.Sequential(anchor.stem, *anchor.blocks, anchor.end)
    train(whole, x, y, 300)
    found = {"exits: whole network": [1.0, accuracy(whole, x, y)]}
    whole.eval()
    for trade in (0.3, 1.0, 3.0):
        net = ExitNet(copy.deepcopy(anchor), (1, 3), 24, 10)
        costs = np.array(net.costs(1, 8, 8), float)
        share = (costs / costs[-1]).tolist()
        samples = Samples(*net.features(x), y)
        parts = [samples.part(torch.arange(a, b)) for a, b in ((0, TRAIN), (TRAIN, VALIDATE))]
        fit_exits(net, *parts, share, trade, epochs=20, phase=7, rate=0.1, seed=seed)
        answers = net.answer(x[VALIDATE:])
        right = answers.logits.argmax(1) == y[VALIDATE:]
        cost = answers.cost(share)
        found[f"exits: gates, trade {trade}"] = [cost, float(right.double().mean())]
        found[f"exits: threshold at the cost of trade {trade}"] = threshold(net, x, y, share, cost)
    return found


@torch.no_grad()
def threshold(net: ExitNet, x: Tensor, y: Tensor, share: list[float], cost: float) -> list[float]:
    """One threshold for all exits, on validation images as dear as the gates."""
    features, final = net.features(x)
    logits = torch.cat((net.head_logits(features), final[:, None]), dim=1)
    sure = logits.softmax(-1).amax(-1)
    table = torch.tensor(share, dtype=torch.float64)

    def leave(at: float) -> Tensor:
        taken = sure >= at
        taken[:, -1] = True
        return taken.int().argmax(1)

    levels = torch.linspace(0, 1, 1001).tolist()
    costs = [float(table[leave(level)[TRAIN:VALIDATE]].mean()) for level in levels]
    at = levels[int(np.abs(np.array(costs) - cost).argmin())]
    exits_ = leave(at)[VALIDATE:]
    said = logits[VALIDATE:].argmax(-1)[torch.arange(len(exits_)), exits_]
    return [float(table[exits_].mean()), float((said == y[VALIDATE:]).double().mean())]


def pruned(seed: int) -> dict[str, list[float]]:
    x, y = digits()
    found = {}
    for name, q in (("magnitude", 0.0), ("AP", 0.02)):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
            nn.Linear(64, 10),
        )  # fmt: skip
        start = copy.deepcopy(net.state_dict())
        masks = {n: torch.ones_like(w).bool() for n, w in ap.prunable_weights(net).items()}
        total = sum(mask.numel() for mask in masks.values())
        for cycle in range(10):
            before = {n: w.detach().clone() for n, w in ap.prunable_weights(net).items()}
            train(net, x, y, 150, masks)
            left = sum(int(mask.sum()) for mask in masks.values())
            goal = round(total * (1 - 0.05 * (cycle + 1)))
            still = round(q * total)
            after = {n: w.detach() for n, w in ap.prunable_weights(net).items()}
            masks = ap.drop_smallest(after, masks, (left - goal - still) / left)
            masks = ap.drop_still_negatives(before, after, masks, still)
            ap.rewind(net, start, masks)
        train(net, x, y, 300, masks)
        with ap.DeadRate(net) as rate, torch.no_grad():
            own = accuracy(net, x, y)
        left = sum(int(mask.sum()) for mask in masks.values()) / total
        found[f"ap: {name}"] = [
            left, own, rate.static, rate.dynamic,
        ]  # fmt: skip
    return found


def adapted(seed: int) -> dict[str, list[float]]:
    torch.manual_seed(seed)
    x, y = digits()
    turned = x.rot90(1, (2, 3))
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    train(net, turned, y, 300)
    found = {"adapters: not adapted": [0.0, accuracy(net, x, y)]}
    for rank in (1, 4, 16):
        own = copy.deepcopy(net)
        count = adapt(own, rank)
        train(own, x, y, 200)
        fuse_adapters(own)
        found[f"adapters: rank {rank}"] = [count, accuracy(own, x, y)]
    train(net, x, y, 200)
    count = sum(p.numel() for p in net.parameters())
    found["adapters: all of it"] = [count, accuracy(net, x, y)]
    return found


def main() -> None:
    parts = {"exits": exits, "ap": pruned, "adapters": adapted}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for part in options.parts or parts:
        rows = [parts[part](seed) for seed in range(options.seeds)]
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            means = " ".join(f"{mean:.4f}" for mean in values.mean(axis=0))
            print(
                f"{name}: {means} (last one from {values[:, -1].min():.4f} to "
                f"{values[:, -1].max():.4f})",
                flush=True,
            )


if __name__ == "__main__":
    main()

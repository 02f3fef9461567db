# SPDX-License-Identifier: Apache-2.0
"""Elastic, stitched and exiting networks are one kind of thing: choices, set, run, count."""

import numpy as np
import pytest
import torch
from torch import nn

from fieldfare.common.efficiency import cost
from fieldfare.common.elastic.mobilenet import Layout, Stage, elastic_classifier, space
from fieldfare.common.slim.anchors import SequentialAnchor
from fieldfare.common.slim.exit_net import GATED, ExitNet
from fieldfare.common.slim.stitch import StitchedNet


class Tokens(nn.Module):
    """The least that can be stitched."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.start, self.end = nn.Linear(6, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.stages, self.axis = (depth,), -1

    def embed(self, x):
        return self.start(x)

    def finish(self, tokens):
        return self.end(tokens)


def elastic():
    genes = space(1, depths=(1, 2), kernels=(3, 5), expansions=(3, 6))
    return elastic_classifier(genes, Layout(2, 2, 0.5, (Stage(24, 2, "relu"),)), 3), (1, 2, 16, 16)


def stitched():
    return StitchedNet([Tokens(4, 3), Tokens(8, 3)], [4, 8]), (1, 5, 6)


def exiting():
    blocks = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)]
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return ExitNet(SequentialAnchor(nn.Conv2d(2, 4, 1), blocks, end), (0, 1), 4, 3), (1, 2, 8, 8)


@pytest.mark.parametrize("family", [elastic, stitched, exiting])
def test_one_loop_serves_all(family):
    net, shape = family()
    net.eval()
    genes = net.choices()
    rng = np.random.default_rng(0)
    macs = {}
    for choice in {genes.sample(rng) for _ in range(6)} | {genes.largest(), genes.smallest()}:
        net.set(choice)
        assert net(torch.randn(shape)).shape[-1] == 3
        if GATED not in choice.values():
            macs[choice] = cost(net, shape).macs
    assert max(macs, key=macs.get) == genes.largest() or family is stitched
    assert macs[genes.smallest()] < macs[genes.largest()]
    with pytest.raises(ValueError, match="is none of"):
        net.set({**genes.largest(), next(iter(genes.genes)): 99})

# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from torch import nn

from fieldfare.common.blocks import ScheduledDropPath
from fieldfare.common.elastic.genes import Space
from fieldfare.common.search.cell_network import (
    OPERATIONS,
    CellNetwork,
    CellPlan,
    Genes,
    operation,
    plan_of,
)
from fieldfare.common.search.cells import cell_space

CELL: Genes = (((0, "skip"), (1, "sep3")), ((1, "avg3"), (2, "max3")), ((0, "dil3"), (1, "sep5")))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_keep_or_halve_any_size(kind: str, ndim: int) -> None:
    x = torch.randn(2, 4, *(5, 4, 1)[:ndim])
    for stride in (1, 2):
        found = operation(kind, ndim, 4, stride, "batch")(x)
        assert found.shape == (2, 4, *[-(-side // stride) for side in x.shape[2:]])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_networks_have_the_channels_of_their_loose_ends(ndim: int) -> None:
    # node 2 is taken by node 3; nodes 3 and 4 are loose: 2 x width, doubled by each reduction
    network = CellNetwork(ndim, 3, CellPlan(CELL, CELL, width=4, repeats=2, reductions=2))
    assert len(network.cells) == 2 + 1 + 2 + 1 + 2
    assert network.channels == 2 * 16
    found = network(torch.randn(2, 3, *[9] * ndim))
    assert found.shape == (2, 32, *[3] * ndim)
    found.sum().backward()
    used = [parameter.grad is not None for parameter in network.cells.parameters()]
    assert all(used)


def test_a_cell_by_hand() -> None:
    torch.manual_seed(0)
    plan = CellPlan((((0, "skip"), (1, "avg3")), ((1, "skip"), (2, "max3"))), (), reductions=0)
    network = CellNetwork(1, 2, plan, "group").eval()
    cell, x = network.cells[0], torch.randn(1, 2, 6)
    old, new = cell.older(network.stem(x)), cell.newer(network.stem(x))
    first = old + nn.AvgPool1d(3, 1, 1, count_include_pad=False)(new)
    torch.testing.assert_close(network(x), new + nn.MaxPool1d(3, 1, 1)(first))


def test_isomorphic_cells_give_the_same_up_to_their_channels_order() -> None:
    plain = cell_space(Space({"a": (1, 2)}), 3, OPERATIONS, ("normal",))
    choice = plain.sample(np.random.default_rng(0))
    cell = plain.cell(choice, "normal")
    genes = tuple(tuple((source, OPERATIONS[kind]) for source, kind in node) for node in cell)
    turned = tuple(node[::-1] for node in genes)
    sizes = {
        sum(p.numel() for p in CellNetwork(1, 2, CellPlan(one, (), reductions=0)).parameters())
        for one in (genes, turned)
    }
    assert len(sizes) == 1


def test_paths_are_dropped_more_often_the_deeper_they_lie() -> None:
    network = CellNetwork(1, 2, CellPlan(CELL, CELL, width=4, keep=0.5, steps=10))
    for depth, cell in enumerate(network.cells, start=1):
        keeps = [m.final for m in cell.modules() if isinstance(m, ScheduledDropPath)]
        assert keeps == pytest.approx([1 - 0.5 * depth / 3] * len(keeps))
    # of six operations one is the identity in a normal cell, none in a reduction
    counts = [sum(isinstance(m, ScheduledDropPath) for m in c.modules()) for c in network.cells]
    assert counts == [5, 6, 5]
    x = torch.randn(3, 2, 8)
    torch.testing.assert_close(network.train()(x), network.train()(x))  # at step 0 all are kept


def test_a_plan_comes_back_from_a_card_and_a_wrong_one_is_refused() -> None:
    plan = CellPlan(CELL, CELL, width=8)
    assert plan_of(json.loads(json.dumps(plan.to_dict()))) == plan == plan_of(plan)
    with pytest.raises(ValueError, match="operation 'sum'"):
        CellPlan((((0, "sum"), (1, "skip")),), CELL)
    with pytest.raises(ValueError, match="cannot take state 2"):
        CellPlan((((0, "skip"), (2, "skip")),), CELL)
    with pytest.raises(ValueError, match="at least one normal cell"):
        CellPlan((), CELL)

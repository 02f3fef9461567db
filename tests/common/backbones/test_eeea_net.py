# SPDX-License-Identifier: Apache-2.0
"""EEEA-Net (arXiv 2108.06156): the published counts and outputs, of C1, C2 and of the cells."""

import json

import pytest
import torch
from published_networks import REFERENCE, assert_near, counted, load, outputs, published
from torch import nn

from fieldfare.common.backbones import eeea_cells, eeea_net
from fieldfare.common.backbones.eeea_cells import GENOTYPES, CellNet
from fieldfare.common.backbones.eeea_net import BlockShape, EEEANet


def test_eeea_net_c1_has_5_068_128_parameters_and_183_127_840_macs():
    found = counted("eeea_net_c1")
    assert (found.parameters, found.macs) == (5_068_128, 183_127_840)


def test_eeea_net_c2_has_5_995_904_parameters_and_291_204_032_macs():
    found = counted("eeea_net_c2")
    assert (found.parameters, found.macs) == (5_995_904, 291_204_032)


@pytest.mark.parametrize(("size", "millions"), [(208, 259.1), (240, 342.2)])
def test_eeea_net_c2_takes_259_1_mmacs_at_208_and_342_2_at_240(size, millions):
    assert round(counted("eeea_net_c2", size).macs / 1e6, 1) == millions


def test_cells_a_have_1_769_230_parameters_and_271_0_mmacs():
    found = counted("eeea_net_cifar_a", 32)
    assert (found.parameters, round(found.macs / 1e6, 1)) == (1_769_230, 271.0)


def test_cells_b_have_1_870_318_parameters_and_301_9_mmacs():
    found = counted("eeea_net_cifar_b", 32)
    assert (found.parameters, round(found.macs / 1e6, 1)) == (1_870_318, 301.9)


def test_cells_c_have_3_513_358_parameters_and_562_7_mmacs():
    found = counted("eeea_net_cifar_c", 32)
    assert (found.parameters, round(found.macs / 1e6, 1)) == (3_513_358, 562.7)


def test_c2_gives_what_the_published_network_gives():
    given = published("eeea_net/c2_small")
    acts = {"relu": nn.ReLU, "h_swish": nn.Hardswish}
    shapes = [
        BlockShape(
            row["out_channels"],
            row["kernel_size"],
            row["mid_channels"],
            row["stride"],
            acts[row["act_func"]],
            row["use_se"],
        )
        for row in json.loads((REFERENCE / "eeea_net/c2_small.json").read_text())
    ]
    # The published table, layer by layer, is ours but for the widths.
    whole = eeea_net._shapes("eeea_net_c2")
    for ours, theirs in zip(whole, shapes, strict=True):
        assert (ours.kernel, ours.stride, ours.activation, ours.squeeze) == (
            theirs.kernel, theirs.stride, theirs.activation, theirs.squeeze
        )  # fmt: skip
    model = EEEANet(shapes, stem=4, last=104, hidden=140, num_classes=10)
    load(model, given, eeea_net.from_published)
    names = {name: name.removeprefix("act.") for name in given if name.startswith("act.blocks.")}
    names |= {"act.first_conv": "stem", "act.final_expand_layer": "last"}
    with torch.no_grad():
        seen = outputs(model, given["in.x"], list(names.values()))
    for theirs, ours in names.items():
        assert_near(seen[ours], given[theirs])
    assert_near(seen[""], given["out.logits"])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("cell_c", CellNet(GENOTYPES["c"], cells=6, channels=4)),
        ("cell_a_se", CellNet(GENOTYPES["a"], cells=3, channels=8, attention=True)),
    ],
)
def test_every_cell_gives_what_the_published_one_gives(name, model):
    given = published(f"eeea_net/{name}")
    load(model, given, eeea_cells.from_published)
    cells = [key.removeprefix("act.") for key in given if key.startswith("act.")]
    with torch.no_grad():
        seen = outputs(model, given["in.x"], cells)
    for cell in cells:
        assert_near(seen[cell], given[f"act.{cell}"])
    assert_near(seen[""], given["out.logits"])


def test_a_published_checkpoint_may_hold_layers_that_never_run():
    model = CellNet(GENOTYPES["c"], cells=3, channels=4)
    state = {
        "cells.0.nl_layer.bn.weight": torch.ones(12),
        "auxiliary_head.features.2.weight": torch.ones(1),
        "classifier.bias": torch.zeros(10),
    }
    assert list(eeea_cells.from_published(state, model)) == ["head.bias"]


@pytest.mark.parametrize("kind", ["a", "b", "c"])
def test_cells_take_odd_sizes_and_drop_paths_only_in_training(kind):
    torch.manual_seed(0)
    model = CellNet(GENOTYPES[kind], cells=3, channels=4, drop_path_rate=0.5)
    x = torch.randn(2, 3, 33, 45)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert model(x).shape == (2, 10)
        assert torch.equal(model(x), model(x))
        assert model.forward_features(x).shape[2:] == (9, 12)

# SPDX-License-Identifier: Apache-2.0
"""AP: the published masks and weights; dead units counted by hand."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fieldfare.common.slim import ap

REFERENCE = Path(__file__).parents[2] / "reference" / "ap_pruning"
CONFIG = json.loads((REFERENCE / "expected.json").read_text())
NAMES = ("0.weight", "2.weight")


@pytest.fixture(scope="module")
def given():
    return load_file(REFERENCE / "expected.safetensors")


def network() -> nn.Sequential:
    inputs, hidden, outputs = CONFIG["dims"]
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def test_masks_and_rewound_weights_are_the_published_ones(given):
    before = {name: given[f"before_training.{name}"] for name in NAMES}
    after = {name: given[f"after_training.{name}"] for name in NAMES}
    masks = {name: torch.ones_like(after[name], dtype=torch.bool) for name in NAMES}
    total = sum(mask.numel() for mask in masks.values())
    assert total == CONFIG["total"]

    masks = ap.drop_smallest(after, masks, (CONFIG["percent"] - CONFIG["percent_ap"]) / 100)
    for name in NAMES:
        assert torch.equal(masks[name], given[f"mask_after_magnitude.{name}"].bool())
        pruned = after[name] * masks[name]
        assert torch.equal(pruned, given[f"weights_after_magnitude.{name}"])

    # the published list holds every layer twice, so its 35 are 18 weights
    count = round(total * CONFIG["percent_ap"] / 100)
    assert count == -(-CONFIG["negative_weights_to_drop"] // 2)
    masks = ap.drop_still_negatives(before, after, masks, count)
    for name in NAMES:
        assert torch.equal(masks[name], given[f"mask_after_ap.{name}"].bool())
    assert sum(int(mask.sum()) for mask in masks.values()) == CONFIG["alive"]

    model = network()
    start = {k.removeprefix("before_training."): v for k, v in given.items() if "before" in k}
    ap.rewind(model, start, masks)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, given[f"rewound.{name}"])


def test_the_share_of_zero_outputs_is_the_published_one(given):
    model = network()
    state = {k.removeprefix("after_training."): v for k, v in given.items() if "after_tr" in k}
    model.load_state_dict(state)
    with ap.DeadRate(model) as rate, torch.no_grad():
        for part in given["data"].split(20):
            model(part)
    assert rate.total == pytest.approx(CONFIG["zero_share_hidden_dense"], abs=1e-9)
    assert rate.static == CONFIG["static_dead_hidden_dense"]


def test_dead_units_by_hand():
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    with ap.DeadRate(model) as rate:
        model(torch.tensor([[1.0, -1, -1, 2], [1.0, -1, 1, -2]]))
    assert rate.total == 4 / 8
    assert rate.static == 2 / 8  # the second unit
    assert rate.dynamic == 2 / 8
    with pytest.raises(ValueError, match="no data has passed"):
        ap.DeadRate(model).total  # noqa: B018
    with pytest.raises(ValueError, match="no ReLU module"):
        ap.DeadRate(nn.Linear(1, 1))


def test_only_still_negative_weights_go():
    before = {"w": torch.tensor([-1.0, -1.0, 1.0, -1.0])}
    after = {"w": torch.tensor([-1.1, -1.5, 1.0, -1.0])}
    masks = {"w": torch.tensor([True, True, True, False])}
    found = ap.drop_still_negatives(before, after, masks, 1)
    assert found["w"].tolist() == [False, True, True, False]
    assert ap.drop_still_negatives(before, after, masks, 0)["w"].equal(masks["w"])
    with pytest.raises(ValueError, match="3 negative weights to drop, 2 are there"):
        ap.drop_still_negatives(before, after, masks, 3)


def test_weights_of_layers_are_found_and_norms_are_not():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert list(ap.prunable_weights(model)) == ["0.weight", "3.weight"]
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in ap.prunable_weights(model).items()}
    found = ap.drop_smallest(ap.prunable_weights(model), masks, 0.5)
    assert sum(int(mask.sum()) for mask in found.values()) == 11

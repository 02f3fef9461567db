# SPDX-License-Identifier: Apache-2.0
"""Gradient matching: the authors' distances; the split against trying all."""

import json

import pytest
import torch
from published_search import REFERENCE, near, tensors

from fieldfare.common.search.split import Kind, best_split, distances, layer_to_split

FILES = REFERENCE / "gradient_matching_split"
TOLD = json.loads((FILES / "expected.json").read_text())
KINDS: dict[str, Kind] = {"per-filter-cos": "filters", "cos": "whole", "mse": "square"}


@pytest.mark.parametrize("name", KINDS)
def test_distances_and_groups_are_the_published_ones(name: str) -> None:
    found = tensors(FILES / "expected.safetensors")
    parts = range(len(TOLD["shapes"]))
    gradients = [[found[f"grad.{op}.{part}"] for part in parts] for op in range(TOLD["ops"])]
    distance = distances(gradients, KINDS[name])
    near(distance, found[f"dist.{name}"], 1e-5)
    split = best_split(distance)
    told = TOLD["dist"][name]["brute_force_min_within"]
    assert sorted(told["group"]) in [list(group) for group in split.groups]
    assert split.within == pytest.approx(told["within"], rel=1e-5)


def test_two_camps_are_told_apart() -> None:
    torch.manual_seed(0)
    camps = [torch.randn(4, 5), torch.randn(4, 5)]
    members = [camps[index % 2] + 0.1 * torch.randn(4, 5) for index in range(6)]
    split = best_split(distances([[gradient] for gradient in members]))
    assert split.groups == ((0, 2, 4), (1, 3, 5))
    alike = [[camps[0] + 0.1 * torch.randn(4, 5)] for _ in range(6)]
    name, chosen = layer_to_split({"alike": alike, "apart": [[g] for g in members]})
    assert name == "apart"
    assert chosen.groups == split.groups


def test_the_number_of_candidates_is_limited() -> None:
    for count in (1, 21):
        with pytest.raises(ValueError, match="can split 2 to 20"):
            best_split(torch.zeros(count, count))

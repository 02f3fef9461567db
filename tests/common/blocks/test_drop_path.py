# SPDX-License-Identifier: Apache-2.0
"""ScheduledDropPath: the published probabilities, and that it keeps the mean."""

import json

import pytest
import timm
import torch
from published_blocks import REFERENCE
from torch import nn

from fieldfare.common.blocks.drop_path import (
    ScheduledDropPath,
    keep_probability,
    schedule_drop_path,
)
from fieldfare.common.blocks.steps import advance, count_steps


def test_probabilities_are_the_published_ones_by_time_by_depth_and_by_both():
    given = json.loads((REFERENCE / "scheduled_drop_path" / "expected.json").read_text())
    final, cells = given["final_keep_probability"], given["total_cells"]
    tables = given["keep_probability[version][cell][step]"]
    for cell in range(cells):
        for place, step in enumerate(given["steps"]):
            depth, time = (cell + 1) / cells, step / given["total_steps"]
            ours = {
                "v1": keep_probability(final, time=time),
                "v2": keep_probability(final, depth=depth),
                "v3": keep_probability(final, depth=depth, time=time),
            }
            for version, value in ours.items():
                assert value == pytest.approx(tables[version][cell][place], abs=1e-6)


def test_the_mean_of_what_is_kept_is_the_input():
    path = ScheduledDropPath(0.7, steps=2)
    path.done.fill_(2)
    torch.manual_seed(0)
    count = 20_000
    kept = path(torch.ones(count, 1, 1))
    assert sorted(kept.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    deviation = (0.3 / 0.7 / count) ** 0.5
    assert abs(float(kept.mean()) - 1) < 3 * deviation


def test_whole_examples_are_dropped_and_nothing_in_evaluation():
    path = ScheduledDropPath(0.5, steps=1)
    x = torch.ones(64, 3, 4)
    assert torch.equal(path(x), x)  # the schedule has not begun
    advance(path)
    torch.manual_seed(0)
    found = path(x).flatten(1)
    assert (found == found[:, :1]).all()
    assert 0 < int((found[:, 0] == 0).sum()) < 64
    assert torch.equal(path.eval()(x), x)


def test_paths_of_a_timm_model_rise_with_depth_and_time():
    model = timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.2, depth=3, embed_dim=24)
    assert schedule_drop_path(model, steps=10) == 4  # two a block; the first block's never drop
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    count_steps(model, optimizer)
    paths = [m for m in model.modules() if isinstance(m, ScheduledDropPath)]
    assert [path.keep for path in paths] == [1, 1, 1, 1]
    for _ in range(5):
        optimizer.step()
    assert [path.keep for path in paths] == pytest.approx([0.95, 0.95, 0.9, 0.9])
    for _ in range(20):
        optimizer.step()
    assert [path.keep for path in paths] == pytest.approx([0.9, 0.9, 0.8, 0.8])


def test_a_model_without_drop_paths_says_so():
    assert schedule_drop_path(nn.Sequential(nn.Linear(2, 2)), steps=10) == 0


@pytest.mark.parametrize(("final", "steps"), [(0, 5), (1.1, 5), (0.5, 0)])
def test_impossible_schedules_are_refused(final, steps):
    with pytest.raises(ValueError, match="must be in"):
        ScheduledDropPath(final, steps)

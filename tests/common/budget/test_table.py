# SPDX-License-Identifier: Apache-2.0
"""The latency table: which layers run, what is missing, the factor."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fieldfare.common.budget import latency
from fieldfare.common.budget.table import LatencyTable, calls_of, read_table
from fieldfare.common.errors import InputError


class Mixer(nn.Module):
    """A layer with a weight of its own around another one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 1, 1))
        self.inner = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x) * self.weight
        return found


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Mixer(), nn.ReLU(), Mixer()).eval()


def calls(net: nn.Module, side: int = 8):
    x = torch.zeros(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    return calls_of(net, lambda: net(x))


def test_layers_with_weights_of_their_own_are_taken_whole() -> None:
    found = calls(network())
    assert [type(call.layer).__name__ for call in found] == ["Conv2d", "Mixer", "ReLU", "Mixer"]
    assert found[1].key == found[3].key != calls(network(), 16)[1].key
    assert all("channels_last" in call.key for call in found)
    assert [call.runner()().shape[-1] for call in found] == [8] * 4


def test_blocks_may_be_taken_whole() -> None:
    net = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.ReLU())
    x = torch.zeros(1, 2)
    kinds = [type(call.layer) for call in calls_of(net, lambda: net(x), (nn.Sequential,))]
    assert kinds == [nn.Sequential, nn.ReLU]


def test_a_network_is_its_layers_times_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "measure", lambda units, **_: dict.fromkeys(units, 0.5))
    table, found = LatencyTable("here"), calls(network())
    with pytest.raises(InputError, match="nor 2 others"):
        table.predict(found)
    assert len(table.missing(found)) == 3
    table.measure(found)
    assert table.predict(found) == 2.0
    table.fit(found, 3.0)
    table.fit(found[:2], 1.0)
    assert table.factor() == pytest.approx(4 / 3)
    assert table.factor("onnx") == 1.0


def test_a_table_is_of_one_machine(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "latency.json"
    table = LatencyTable("here", {"a": 1.5}, {"torch": [(1.0, 2.0)]})
    table.write(path)
    assert read_table(path, "here") == table
    assert read_table(path, "there") == LatencyTable("there")
    path.write_text('{"machine": "here"}')
    assert read_table(path, "here") == LatencyTable("here")

# SPDX-License-Identifier: Apache-2.0
"""Steps are kept while the quality stays, until the target is met."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.slim.steps import (
    Channels,
    Halves,
    Measured,
    Target,
    Tried,
    bytes_of,
    rounded,
    run,
    stored_tensors,
)
from fieldfare.common.slim.workshop import Draft

WHOLE = Measured(quality=0.9, seconds=1.0, macs=100, bytes=1000)


class Listed:
    """A step whose drafts are linear layers of ever fewer outputs, marked by their number."""

    def __init__(self, name: str, *found: Measured) -> None:
        self.name, self.found, self.asked = name, found, 0

    def candidates(self, draft: Draft) -> Iterator[tuple[str, Draft]]:
        for measured in self.found:
            self.asked += 1
            network = nn.Linear(1, 1)
            network.measured = measured
            yield str(measured.macs), Draft(network)


def measured(quality: float, macs: int) -> Measured:
    return Measured(quality, 1.0, macs, 1000)


def taken(target: Target, *steps: Listed, least: float = 0.89) -> tuple[Measured, list[Tried]]:
    told: list[Tried] = []
    draft, now = run(
        Draft(nn.Identity()),
        steps,
        lambda draft: draft.network.measured,
        target,
        least,
        now=WHOLE,
        told=told.append,
    )
    assert now is getattr(draft.network, "measured", WHOLE)
    return now, told


def test_a_step_goes_on_until_the_target_is_met() -> None:
    step = Listed("a", measured(0.9, 80), measured(0.895, 60), measured(0.9, 40))
    now, told = taken(Target(macs=60), step, Listed("b", measured(1.0, 10)))
    assert (now.macs, step.asked, len(told)) == (60, 2, 2)


def test_what_costs_too_much_quality_is_left_and_the_next_step_tried() -> None:
    first = Listed("a", measured(0.9, 80), measured(0.88, 60), measured(0.95, 40))
    now, told = taken(Target(macs=50), first, Listed("b", measured(0.89, 50)))
    assert now.macs == 50
    assert [tried.kept for tried in told] == [True, False, True]


def test_a_step_that_makes_nothing_cheaper_must_not_make_it_worse() -> None:
    now, _ = taken(Target(macs=1), Listed("a", measured(0.899, 100)))
    assert now is WHOLE
    now, _ = taken(Target(macs=1), Listed("a", measured(0.9, 100)))
    assert now is not WHOLE


def test_a_target_that_is_met_from_the_start_needs_no_step() -> None:
    step = Listed("a", measured(1.0, 1))
    assert taken(Target(macs=100, bytes=1000, seconds=1.0), step) == (WHOLE, [])
    assert taken(Target(macs=100, bytes=999), step)[0].macs == 1


class Net(nn.Module):
    """Two convolutions with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x))
        return found


def test_the_steps_of_a_real_network() -> None:
    torch.manual_seed(0)
    net, batches = Net().eval(), torch.randn(4, 1, 8, 8).split(2)
    drafts = [draft for _, draft in Channels("", batches, batches[0]).candidates(Draft(net))]
    assert [draft.network.head.in_channels for draft in drafts] == [
        *(16, 16, 8, 8, 8, 8)  # multiples of eight
    ]
    [(_, half)] = Halves().candidates(Draft(net))
    assert bytes_of(half) < 0.75 * bytes_of(Draft(net))
    again = Net().eval()
    again.load_state_dict(stored_tensors(half))
    assert torch.equal(again(batches[0]), rounded(half)(batches[0]))
    assert rounded(Draft(net)) is net
    assert list(Halves().candidates(half)) == []


def test_a_missing_library_is_told_before_work_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"fieldfare-common\[slim\]"):
        Channels("", [], torch.zeros(1))


@pytest.mark.parametrize("step", [Channels("", [], torch.zeros(1, 1, 8, 8))])
def test_a_network_of_one_layer_has_no_channels_to_lose(step: Channels) -> None:
    assert list(step.candidates(Draft(nn.Conv2d(1, 4, 1)))) == []

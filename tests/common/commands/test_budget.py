# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

import pytest

from fieldfare.common import console
from fieldfare.common.budget import process
from fieldfare.common.budget.variants import Variant, Variants
from fieldfare.common.commands import budget
from fieldfare.common.console.shared import BudgetOptions
from fieldfare.common.errors import InputError

FOUND = Variants(
    "counting",
    "sheep",
    "share",
    "a shepherd",
    (
        Variant("whole", {"model": "herd", "depth": 4}, 0.9, 40, 400, 4.0, 2**20),
        Variant("half", {"model": "herd", "depth": 2}, 0.5, 10, 100, 1.0, 2**20),
    ),
)
HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Options(BudgetOptions):
    model: str = console.option(default="herd", help="-")
    depth: int | None = console.option(type=int, help="-")


@pytest.fixture(autouse=True)
def packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "variants_of", lambda task: FOUND)


def plan(options: Options) -> tuple[Options, budget.Plan]:
    return budget.plan(
        "counting",
        options,
        memory_of=lambda chosen: 2**20,
        seconds_of=lambda chosen: HOUR * (chosen.depth or 0),
        model=options.model,
        default_model="herd",
    )


def test_asked_where_a_limit_or_a_name_is_given() -> None:
    assert not budget.asked(Options())
    for given in ({"within": 1.0}, {"max_memory": 1}, {"budget": 1.0}, {"variant": "half"}):
        assert budget.asked(Options(**given))  # type: ignore[arg-type]


def test_the_chosen_variant_sets_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    options, planned = plan(Options(within=3 * HOUR))
    assert options.depth == 2
    assert planned.variant.name == "half"
    assert "half: expects share 0.500, about 2 h" in capsys.readouterr().err
    told = planned.outcome()
    assert told["variant"] == "half"
    assert told["expected_seconds"] >= 2 * HOUR
    assert 0 < told["run_seconds"] < told["expected_seconds"]
    assert "of 3 h 00 min" in planned.sentence()


def test_a_named_variant_is_taken_unmeasured() -> None:
    options, planned = plan(Options(variant="whole"))
    assert options.depth == 4
    assert planned.expected is None
    with pytest.raises(InputError, match="--variant: takes no --within"):
        plan(Options(variant="whole", within=HOUR))


def test_a_model_without_variants_is_refused() -> None:
    with pytest.raises(InputError, match="--model mine"):
        plan(Options(model="mine", within=9 * HOUR))


def test_a_variant_of_other_options_is_refused() -> None:
    odd = Variant("odd", {"wings": 2}, 1.0, 1, 1, 1.0)
    with pytest.raises(InputError, match="wings"):
        budget.settled(Options(), odd)


def test_the_process_knows_its_age_and_its_memory() -> None:
    age = process.running_seconds()
    assert 0 < age < 1e6
    assert process.running_seconds() >= age
    if process.STATUS.exists():
        assert process.peak_bytes() >= process.held_bytes() > 2**20

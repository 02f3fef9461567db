# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass
from pathlib import Path

import pytest

from fieldfare.common import console
from fieldfare.common.budget import process
from fieldfare.common.budget.variants import Variant, Variants
from fieldfare.common.commands import budget
from fieldfare.common.console.shared import BudgetOptions
from fieldfare.common.errors import InputError

pytestmark = pytest.mark.usefixtures("started_now")

FOUND = Variants(
    "counting",
    "sheep",
    "share",
    "a shepherd",
    (
        Variant("whole", {"model": "herd", "depth": 4}, 0.9, 40, 400, 4.0, 2**20),
        Variant("half", {"model": "herd", "depth": 2}, 0.5, 10, 100, 1.0, 2**20),
        Variant("wild", {"model": "strays", "depth": 0}, 0.99, 1, 1, 0.1, 2**20, True),
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


def plan(options: Options, workers: int | None = None) -> tuple[Options, budget.Plan | None]:
    def needs(chosen: Options) -> budget.Needs[int]:
        return budget.Needs(lambda sheep: 2**20, lambda sheep: HOUR * sheep * (chosen.depth or 0))

    return budget.within("counting", options, [1], needs, workers=workers)


def planned(options: Options, workers: int | None = None) -> tuple[Options, budget.Plan]:
    options, found = plan(options, workers)
    assert found
    return options, found


def test_asked_where_a_limit_or_a_name_is_given() -> None:
    assert not budget.asked(Options())
    for given in ({"within": 1.0}, {"max_memory": 1}, {"budget": 1.0}, {"variant": "half"}):
        assert budget.asked(Options(**given))  # type: ignore[arg-type]


def test_the_chosen_variant_sets_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    options, found = planned(Options(within=3 * HOUR))
    assert options.depth == 2
    assert found.variant.name == "half"
    assert "half: expects share 0.500, about 2 h" in capsys.readouterr().err
    told = budget.outcome(found)
    assert told["variant"] == "half"
    assert told["expected_seconds"] >= 2 * HOUR
    assert 0 < told["run_seconds"] < told["expected_seconds"]
    assert "of 3 h 00 min" in found.sentence()
    assert budget.record(found) == {"variant": "half"}


def test_nothing_is_chosen_unasked() -> None:
    options = Options(depth=7)
    assert plan(options) == (options, None)
    assert budget.outcome(None) == budget.record(None) == {}


def test_a_named_variant_is_taken_unmeasured() -> None:
    options, found = planned(Options(variant="whole"))
    assert options.depth == 4
    assert found.expected is None
    with pytest.raises(InputError, match="--variant: takes no --within"):
        plan(Options(variant="whole", within=HOUR))


def test_what_the_user_fixed_stays() -> None:
    options, found = planned(Options(depth=2, within=99 * HOUR))
    assert (options.depth, found.variant.name) == (2, "half")
    with pytest.raises(InputError, match="--depth 3: nothing was measured with that"):
        plan(Options(depth=3, within=99 * HOUR))
    with pytest.raises(InputError, match="--variant whole: is not with --depth 2"):
        plan(Options(depth=2, variant="whole"))


def test_a_variant_for_those_who_name_it_is_not_chosen_otherwise() -> None:
    assert planned(Options(within=99 * HOUR))[1].variant.name == "whole"
    assert planned(Options(within=99 * HOUR, model="strays"))[1].variant.name == "wild"
    assert planned(Options(variant="wild"))[0].model == "strays"


def test_a_model_without_variants_is_refused() -> None:
    with pytest.raises(InputError, match="--model mine"):
        plan(Options(model="mine", within=9 * HOUR))


def test_workers_share_the_inputs_and_must_start() -> None:
    def needs(chosen: Options) -> budget.Needs[float]:
        return budget.Needs(lambda size: 2**20, lambda size: size * (chosen.depth or 0))

    alone, shared = (
        budget.within("counting", Options(within=HOUR), [100.0, 60.0], needs, workers=workers)[1]
        for workers in (1, 2)
    )
    assert alone is not None
    assert shared is not None
    assert alone.expected is not None
    assert shared.expected is not None
    assert 640 < alone.expected.seconds < 640 + HOUR
    assert alone.expected.seconds - shared.expected.seconds == pytest.approx(240, abs=60)
    assert shared.expected.memory == pytest.approx(2 * alone.expected.memory, rel=0.5)


@pytest.mark.parametrize("workers", [None, 1])
def test_of_many_inputs_a_bad_one_does_not_stop_the_others(workers: int | None) -> None:
    def size(sheep: int) -> int:
        if not sheep:
            raise InputError("no sheep")
        return sheep

    def chosen(inputs: list[int]) -> budget.Plan | None:
        needs = budget.Needs(size, size)
        return budget.within(
            "counting", Options(within=HOUR), inputs, lambda _: needs, workers=workers
        )[1]

    with pytest.raises(InputError, match="no sheep"):
        chosen([0, 0])
    if workers:
        assert chosen([0, 5]) is not None
    else:
        with pytest.raises(InputError, match="no sheep"):
            chosen([0, 5])


def test_a_variant_of_other_options_is_refused() -> None:
    odd = Variant("odd", {"wings": 2}, 1.0, 1, 1, 1.0)
    with pytest.raises(InputError, match="wings"):
        budget.settled(Options(), odd)


def test_the_process_knows_its_age_and_its_memory() -> None:
    age = process.running_seconds()
    assert 0 < age < 1e6
    assert process.running_seconds() >= age
    if process.STATUS.exists():
        assert 1.02 * process.peak_bytes() >= process.held_bytes() > 2**20  # counted in lots


def test_a_file_of_variants_is_a_model_of_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Variants("counting", "sheep", "share", "here", FOUND.variants[:2])
    path = tmp_path / "counting.variants.json"
    own.write(path)
    options, found = planned(Options(model=str(path), within=3 * HOUR))
    assert found.variant.name == "half"
    assert (options.model, options.depth) == (str(tmp_path / "herd"), 2)
    assert planned(Options(model=str(path), variant="whole"))[0].depth == 4
    with pytest.raises(InputError, match="holds several models"):
        plan(Options(model=str(path)))
    with pytest.raises(InputError, match="no such file"):
        plan(Options(model="nowhere.variants.json", within=HOUR))
    Variants("herding", "sheep", "share", "here", ()).write(path)
    with pytest.raises(InputError, match="variants of herding, not of counting"):
        plan(Options(model=str(path), within=HOUR))

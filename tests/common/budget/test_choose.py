# SPDX-License-Identifier: Apache-2.0
import re
import time

import pytest

from fieldfare.common.budget.choose import Limits, choose, format_bytes, format_macs
from fieldfare.common.budget.deadline import OutOfTime, deadline
from fieldfare.common.budget.variants import Variant
from fieldfare.common.errors import InputError

VARIANTS = [
    Variant(name, {"depth": depth}, quality, macs, 10**6, seconds, memory)
    for depth, (name, quality, macs, seconds, memory) in enumerate(
        [
            ("small", 0.5, 10**9, 1.0, 100 * 2**20),
            ("middle", 0.6, 3 * 10**9, 3.0, 300 * 2**20),
            ("large", 0.7, 9 * 10**9, 9.0, 200 * 2**20),
        ]
    )
]


def chosen(measured: list[str] | None = None, **limits: float) -> str:
    seen = [] if measured is None else measured

    def seconds(variant: Variant) -> float:
        seen.append(variant.name)
        return variant.seconds

    return choose(
        VARIANTS,
        Limits(**limits),  # type: ignore[arg-type]
        memory_of=lambda variant: variant.peak_bytes or 0,
        seconds_of=seconds,
    ).variant.name


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"seconds": 10.0}, "large"),
        ({"seconds": 9.9}, "middle"),
        ({"seconds": 1.2}, "small"),
        ({"memory": 250 * 2**20}, "large"),
        ({"memory": 200 * 2**20}, "small"),
        ({"macs": 9e9}, "large"),
        ({"macs": 8.9e9}, "middle"),
        ({"macs": 8.9e9, "seconds": 100.0, "memory": 2**30}, "middle"),
        ({"macs": 8.9e9, "memory": 250 * 2**20}, "small"),
    ],
)
def test_the_best_that_fits_with_a_tenth_to_spare(limits: dict[str, float], name: str) -> None:
    assert chosen(**limits) == name


def test_measures_no_further_than_needed_and_never_what_memory_forbids() -> None:
    measured: list[str] = []
    assert chosen(measured, seconds=4.0, memory=250 * 2**20) == "small"
    assert measured == ["large", "small"]


def test_what_cannot_be_fast_enough_is_not_measured() -> None:
    measured: list[str] = []
    assert chosen(measured, seconds=1.2) == "small"
    assert measured == ["large", "small"]  # a third of nine seconds is still too much


@pytest.mark.parametrize(
    ("limit", "measured"), [(12.0, []), (10.5, ["large"]), (4.0, ["large"]), (3.9, ["large"])]
)
def test_an_upper_bound_is_enough_where_it_fits(limit: float, measured: list[str]) -> None:
    seen: list[str] = []

    def seconds(variant: Variant) -> float:
        seen.append(variant.name)
        return variant.seconds

    found = choose(
        VARIANTS,
        Limits(seconds=limit),
        memory_of=lambda _: 1,
        seconds_of=seconds,
        at_most_of=lambda variant: 1.2 * variant.seconds,
    )
    assert seen == (measured if limit != 3.9 else ["large", "middle"])
    assert found.expected.surely == (limit in (12.0, 4.0))
    assert ("at most" in found.sentence("share")) == found.expected.surely


def test_nothing_is_measured_where_time_is_not_limited() -> None:
    seen: list[str] = []
    assert chosen(seen, macs=4e9, memory=2**30) == "middle"
    assert not seen


def test_time_that_is_spent_ends_the_search() -> None:
    measured: list[str] = []

    def seconds(variant: Variant) -> float:
        measured.append(variant.name)
        return 0.1

    with pytest.raises(InputError, match=r"--within 5 s: .* here is about 6\.68s"):
        choose(
            VARIANTS,
            Limits(seconds=5.0),
            memory_of=lambda _: 1,
            seconds_of=seconds,
            spent=lambda: 4.0 + 2 * len(measured),
        )
    assert measured == ["large"]


@pytest.mark.parametrize(
    ("quick", "said"),
    [
        ("large", r"nothing fits; the smallest that does here is about [\d.]+s"),
        ("none", "on trial takes longer than that alone"),
    ],
)
def test_a_trial_is_broken_off_when_the_limit_is_over(quick: str, said: str) -> None:
    measured: list[str] = []
    began = time.monotonic()

    def seconds(variant: Variant) -> float:
        measured.append(variant.name)
        if variant.name != quick:
            time.sleep(60)
        return 9.0

    with pytest.raises(InputError, match=said):
        choose(
            VARIANTS,
            Limits(seconds=0.5),
            memory_of=lambda _: 1,
            seconds_of=seconds,
            spent=lambda: time.monotonic() - began,
        )
    assert time.monotonic() - began < 30
    assert len(measured) == (1 if quick == "none" else 2)


def test_a_deadline_ends_with_its_block() -> None:
    with deadline(0.05):
        pass
    time.sleep(0.1)
    with pytest.raises(OutOfTime), deadline(0):
        raise AssertionError
    with pytest.raises(OutOfTime), deadline(0.01):
        time.sleep(30)


def test_of_equal_quality_the_cheaper_one() -> None:
    twins = [
        Variant("dear", {}, 0.5, 200, 1, 1.0, 1),
        Variant("cheap", {}, 0.5, 100, 1, 1.0, 1),
    ]
    found = choose(twins, Limits(seconds=9.0), memory_of=lambda _: 1, seconds_of=lambda _: 1.0)
    assert found.variant.name == "cheap"


@pytest.mark.parametrize(
    ("limits", "option"),
    [
        ({"seconds": 0.5}, "--within"),
        ({"memory": 2**20}, "--max-memory"),
        ({"macs": 1e6}, "--budget"),
    ],
)
def test_what_cannot_be_kept_names_the_smallest_that_can(
    limits: dict[str, float], option: str
) -> None:
    with pytest.raises(InputError, match=option) as refusal:
        chosen(**limits)
    (number, unit) = re.search(r"here is ([\d.]+) ?(\w+)$", str(refusal.value)).groups()  # type: ignore[union-attr]
    size = {"s": 1.0, "MiB": 2.0**20, "GMAC": 1e9}[unit]
    assert chosen(**{name: float(number) * size for name in limits}) == "small"


def test_no_limit_is_none() -> None:
    assert not Limits()
    assert Limits(macs=1)


def test_amounts_as_people_read_them() -> None:
    assert format_bytes(812 * 2**20) == "812 MiB"
    assert format_bytes(1.5 * 2**30) == "1.5 GiB"
    assert format_macs(3.12e9) == "3.12 GMAC"
    assert format_macs(12) == "12 MAC"

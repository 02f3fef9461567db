# SPDX-License-Identifier: Apache-2.0
"""The learning rate at the places where it turns."""

import pytest

from fieldfare.common.training import cosine_with_warmup


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.1),  # the first step already moves
        (4, 0.5),
        (9, 1.0),  # the last of the warm-up
        (10, 1.0),
        (60, 0.505),  # half-way down, between peak and floor
        (110, 0.01),
        (10_000, 0.01),
    ],
)
def test_rate_at_start_end_of_warmup_middle_and_end(step: int, rate: float) -> None:
    given = cosine_with_warmup(step, steps=110, peak=1.0, floor=0.01, warmup=10)
    assert given == pytest.approx(rate, abs=1e-12)


def test_without_warmup_it_starts_at_the_peak() -> None:
    assert cosine_with_warmup(0, steps=5, peak=0.3, floor=0.0, warmup=0) == 0.3


def test_run_of_warmup_alone_is_defined() -> None:
    rates = [cosine_with_warmup(s, steps=3, peak=0.3, floor=0.0, warmup=3) for s in range(4)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.3])

# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from fieldfare.common.budget import latency
from fieldfare.common.budget.collect import collect, operations


def prepare(settings: Mapping[str, Any]) -> Callable[[], object]:
    """A product of matrices of so many columns."""
    one, other = torch.ones(8, 4), torch.ones(4, settings["columns"])
    return lambda: one @ other


def test_operations_are_those_of_the_products() -> None:
    assert operations(prepare({"columns": 6})) == 8 * 4 * 6


def test_variants_hold_what_was_measured_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "units_of", lambda task: prepare)
    found = collect(
        "products",
        {"wide": {"columns": 64}, "slim": {"columns": 2}},
        unit="two products",
        metric="columns",
        quality=lambda settings: settings["columns"] / 3,
        weights=lambda settings: settings["columns"],
        share=lambda settings: 2.0,
        digits=2,
        only_named=lambda settings: settings["columns"] > 9,
        repeats=2,
    )
    wide, slim = found.variants
    assert (wide.name, wide.quality, wide.macs, wide.bytes) == ("wide", 21.33, 2 * 8 * 4 * 64, 64)
    assert (wide.only_named, slim.only_named) == (True, False)
    assert wide.seconds > 0
    assert found.machine == latency.machine()

# SPDX-License-Identifier: Apache-2.0
"""A recording is unlike what a model knows where most of its flows are unfamiliar."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from fieldfare.netsec.inference.unlike import UnlikeFlows


def table(familiarity):
    labels = ["unknown" if value < 0.08 else "WEB" for value in familiarity]
    return pa.table({"familiarity": familiarity, "label": labels})


@pytest.mark.parametrize(("strange", "alarm"), [(4, False), (10, False), (11, True), (20, True)])
def test_the_alarm_begins_where_half_of_the_flows_are_unfamiliar(strange, alarm):
    counted = UnlikeFlows(SimpleNamespace(unknown_below=0.08))
    counted.add(table([0.0] * 50))  # without payload: they say nothing
    counted.add(table([0.01] * strange))
    counted.add(table([0.5] * (20 - strange) + [0.0]))
    found = counted.judgement()
    assert found.alarm == alarm
    assert found.beyond == pytest.approx(strange / 20)
    assert found.expected == pytest.approx(1 - strange / 20)
    assert (found.distance > 1) == alarm
    assert found.nearest == ("WEB" if strange < 20 else "unknown")


def test_few_flows_and_models_without_evidence_say_nothing():
    few = UnlikeFlows(SimpleNamespace(unknown_below=0.08))
    few.add(table([0.5] * 9))
    assert few.judgement() is None
    silent = UnlikeFlows(SimpleNamespace(unknown_below=None))
    silent.add(pa.table({"familiarity": pa.nulls(30, pa.float64()), "label": ["WEB"] * 30}))
    assert silent.judgement() is None

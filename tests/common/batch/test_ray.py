# SPDX-License-Identifier: Apache-2.0
"""The Ray engine: the same files and the same verdicts as the local one."""

import importlib.util
import os
from collections.abc import Callable

import pytest
from batch_workers import Faulty, read_lines, written

from fieldfare.common.batch import Item, Progress, Summary
from fieldfare.common.batch.ray_engine import connect, cores_each
from fieldfare.common.errors import InputError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="RAY IS NOT INSTALLED: --engine ray is NOT tested (pip install 'fieldfare-common[ray]')",
)


@pytest.mark.slow
@needs_ray
def test_ray_writes_the_files_of_a_plain_loop_and_isolates_faults(
    go: Callable[..., Summary], items: list[Item], faulty: Faulty, expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_worker = faulty.having(k03="die-once", k05="raise", k08="die", k09="oserror-once")
    reports: list[Progress] = []
    first = go(items, make_worker, engine="ray", workers=2, retries=1, progress=reports.append)
    assert reports[0].waiting_for == "Ray to start"
    assert not reports[-1].waiting_for
    assert sorted(first.errors) == ["05", "08"]
    assert first.errors["05"] == "ZeroDivisionError: a bug"
    assert "worker died" in first.errors["08"]
    attempts = {
        line["key"]: line["attempts"] for line in read_lines(first.manifest) if "attempts" in line
    }
    done = [line["numbers"] for line in read_lines(first.manifest) if "numbers" in line]
    assert {numbers["niceness"] for numbers in done} == {
        os.nice(0)
    }  # not Ray's own, which starves workers beside other work
    # The death at 03 is charged to the item before it if that one's result died on the way.
    charged = {key for key, count in attempts.items() if count == 2}
    assert {"08", "09"} < charged
    assert not list(first.manifest.parent.rglob(".fieldfare*"))

    second = go(items, faulty, engine="ray", workers=2)  # the manifest serves both engines
    assert (second.done, second.skipped) == (2, 18)
    assert written(items) == expected


def test_missing_ray_is_named_with_its_cure(
    go: Callable[..., Summary], items: list[Item], faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"fieldfare-common\[ray\]"):
        go(items, faulty, engine="ray")


def test_an_address_where_nothing_listens_is_an_input_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: no Ray cluster answers"):
        connect(None, workers=1)


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "cores"),
    [
        ([{"CPU": 8}], 2, 0, 4),
        ([{"CPU": 8}], 3, 0, 2),
        ([{"CPU": 2}], 8, 0, 1),
        ([{"CPU": 5}] * 3, 4, 0, 2),
        ([{"CPU": 0}, {"CPU": 64}, {"CPU": 8, "GPU": 2}], 4, 0.5, 2),
        ([{"CPU": 64}, {"CPU": 8, "GPU": 2}], 2, 1, 4),
    ],
)
def test_cores_are_divided_so_that_all_workers_fit(
    nodes: list[dict[str, float]], workers: int, gpus: float, cores: int
) -> None:
    assert cores_each(nodes, workers, gpus) == cores


def test_a_cluster_without_the_gpus_is_refused() -> None:
    with pytest.raises(InputError, match="--gpus-per-worker"):
        cores_each([{"CPU": 64, "GPU": 0}], 1, 0.5)

# SPDX-License-Identifier: Apache-2.0
"""The local engine: same files as a plain loop, whatever happens to the workers."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from batch_workers import (
    Faulty,
    ReportEnvironment,
    alive,
    make_items,
    read_lines,
    start_slowly,
    wait_until,
    written,
)

from fieldfare.common.batch import Item, Progress, Summary, run
from fieldfare.common.batch.local import divide_gpus
from fieldfare.common.errors import InputError, RunError

Go = Callable[..., Summary]


def temporaries(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith(".fieldfare")]


def last_lines(summary: Summary) -> dict[str, dict]:
    return {line["key"]: line for line in read_lines(summary.manifest) if "key" in line}


@pytest.mark.parametrize("workers", [1, 2])
def test_files_equal_those_of_a_plain_loop(
    go: Go, items: list[Item], faulty: Faulty, expected: dict[str, bytes], workers: int
) -> None:
    summary = go(iter(items), faulty, workers=workers)
    assert written(items) == expected
    assert (summary.done, summary.failed, summary.skipped, summary.exit_code) == (20, 0, 0, 0)
    assert len(faulty.pids()) <= workers
    assert not temporaries(summary.manifest.parent)
    line = last_lines(summary)["03"]
    assert line["status"] == "done"
    assert line["attempts"] == 1
    assert line["numbers"]["bytes"] == items[3].inputs[0].stat().st_size
    assert [output["path"] for output in line["outputs"]] == ["deep/03.result.bin", "03.txt"]


def test_faults_cost_their_own_items_only(
    go: Go, items: list[Item], faulty: Faulty, expected: dict[str, bytes]
) -> None:
    make_worker = faulty.having(
        k02="die-once", k05="raise", k06="refuse", k07="oserror-once", k08="oserror",
        k10="die", k11="exit", k13="nothing",
    )  # fmt: skip
    summary = go(items, make_worker, workers=2, retries=2)
    assert sorted(summary.errors) == ["05", "06", "08", "10", "11", "13"]
    assert (summary.done, summary.failed, summary.exit_code) == (14, 6, 3)
    assert summary.errors["05"] == "ZeroDivisionError: a bug"
    assert summary.errors["06"] == "06: not a raster"
    assert "worker died" in summary.errors["10"]
    assert "not written" in summary.errors["13"]
    good = [item for item in items if item.key not in summary.errors]
    assert written(items) == {
        output.name: expected[output.name] for item in good for output in item.outputs
    }
    attempts = {key: line["attempts"] for key, line in last_lines(summary).items()}
    assert {key for key, count in attempts.items() if count > 1} == {"02", "07", "08", "10"}
    assert attempts["02"] == attempts["07"] == 2
    assert attempts["08"] == attempts["10"] == faulty.starts("10") == 3
    assert "a bug" in last_lines(summary)["05"]["trace"]
    assert not temporaries(summary.manifest.parent)


def test_nothing_done_is_exit_1(go: Go, items: list[Item], faulty: Faulty) -> None:
    summary = go(items[:1], faulty.having(k00="die"), retries=0)
    assert (summary.exit_code, summary.failed) == (1, 1)
    assert not written(items)
    assert not temporaries(summary.manifest.parent)


@pytest.mark.parametrize(
    ("at_load", "error", "loads"), [("die", RunError, 2), ("raise", RunError, 1),
                                    ("refuse", InputError, 1)]
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_ends_the_run(
    go: Go, items: list[Item], faulty: Faulty, at_load: str, error: type[Exception], loads: int
) -> None:
    with pytest.raises(error, match=r"model|weights"):
        go(items, Faulty(faulty.log, at_load=at_load), retries=1)
    assert len(list(faulty.log.glob("load.*"))) == loads


def test_a_resumed_run_starts_only_what_is_missing(
    go: Go, items: list[Item], faulty: Faulty, expected: dict[str, bytes]
) -> None:
    first = go(items, faulty.having(k04="raise"), workers=2)
    assert first.errors.keys() == {"04"}
    items[7].outputs[0].write_bytes(b"shortened by someone")
    items[9].outputs[1].unlink()
    items[11].inputs[0].write_bytes(b"changed")
    second = go(items, faulty, workers=2)
    assert (second.done, second.skipped, second.exit_code) == (4, 16, 0)
    again = {item.key for item in items if faulty.starts(item.key) > 1}
    assert again == {"04", "07", "09", "11"}
    new = written(items)
    assert {name for name in new if new[name] != expected[name]} == {"11.result.bin"}
    loads = len(faulty.pids())
    third = go(items, faulty, workers=2)
    assert (third.done, third.skipped, third.exit_code) == (0, 20, 0)
    assert len(faulty.pids()) == loads  # no worker was started for nothing


def test_a_killed_driver_leaves_no_worker_and_a_resume_starts_no_finished_item(
    go: Go, tmp_path: Path, items: list[Item], faulty: Faulty, expected: dict[str, bytes]
) -> None:
    driver = start_driver_that_hangs(tmp_path, faulty)
    driver.kill()
    driver.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in faulty.pids()), 5)
    finished = [
        line["key"]
        for line in read_lines(tmp_path / "out" / "manifest.jsonl")
        if line.get("status") == "done"
    ]
    assert len(finished) >= 10
    assert temporaries(tmp_path)  # of the hanging items; the next run removes them
    summary = go(items, faulty, workers=2)
    assert summary.exit_code == 0
    assert written(items) == expected
    assert {key: faulty.starts(key) for key in finished} == dict.fromkeys(finished, 1)
    assert not temporaries(tmp_path)


def test_ctrl_c_ends_at_once_without_leftovers(tmp_path: Path, faulty: Faulty) -> None:
    driver = start_driver_that_hangs(tmp_path, faulty)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode != 0
    assert errors.count("Traceback") == 1  # the driver's own KeyboardInterrupt, no worker's
    assert "KeyboardInterrupt" in errors
    assert not any(alive(pid) for pid in faulty.pids())
    assert read_lines(tmp_path / "out" / "manifest.jsonl")
    assert not temporaries(tmp_path)


def start_driver_that_hangs(root: Path, faulty: Faulty) -> subprocess.Popen[str]:
    """A driver whose two workers have done items 00 to 11 and now hang."""
    hanging = [f"{index:02d}" for index in range(12, 20)]
    faults = json.dumps(dict.fromkeys(hanging, "hang"))
    code = "import sys, batch_workers; batch_workers.drive(*sys.argv[1:])"
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(root), "20", "2", faults],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: sum(map(faulty.starts, hanging)) == 2, 60)
    return driver


def test_items_are_taken_no_faster_than_workers_need_them(
    go: Go, tmp_path: Path, faulty: Faulty
) -> None:
    ahead = []
    taken, done = 0, 0

    def generate() -> Sequence[Item]:
        nonlocal taken
        for item in make_items(tmp_path, 20):
            taken += 1
            ahead.append(taken - done)
            yield item

    def count(progress: Progress) -> None:
        nonlocal done
        done = progress.done
        assert progress.total is None

    assert go(generate(), faulty, progress=count).done == 20
    assert max(ahead) <= 5  # two in flight, two just finished, the next


def test_cores_and_gpus_are_divided(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    item = Item("one", (), (tmp_path / "out" / "one.txt",))
    summary = go([item], ReportEnvironment(), workers=1, gpus_per_worker=2)
    cores = len(os.sched_getaffinity(0))
    assert item.outputs[0].read_text() == f"{cores} 4,7"
    assert last_lines(summary)["one"]["numbers"] == {"torch": False, "nan": None}
    with pytest.raises(InputError, match="needs 3 GPUs, 2 found"):
        go([item], ReportEnvironment(), workers=3, gpus_per_worker=1, overwrite=True, resume=False)


def test_gpus_are_shared_by_parts_and_never_split_across() -> None:
    assert divide_gpus(4, 0.5, ["0", "1"]) == ["0", "0", "1", "1"]
    assert divide_gpus(3, 0.3, ["a"]) == ["a", "a", "a"]
    assert divide_gpus(2, 2, ["0", "1", "2", "3"]) == ["0,1", "2,3"]
    with pytest.raises(InputError, match="needs 2 GPUs, 1 found"):
        divide_gpus(4, 0.4, ["0"])


def test_run_works_in_a_thread(items: list[Item], faulty: Faulty, tmp_path: Path) -> None:
    results = []
    thread = threading.Thread(
        target=lambda: results.append(run(items[:2], faulty, tmp_path / "out", settings={}))
    )
    thread.start()
    thread.join()
    assert results[0].exit_code == 0


def test_the_reports_say_what_all_items_wait_for(
    go: Callable[..., Summary], items: list[Item]
) -> None:
    reports: list[Progress] = []
    go(items[:2], start_slowly, workers=2, progress=reports.append)
    assert reports[0].waiting_for == "2 workers to load the model"
    assert not reports[-1].waiting_for

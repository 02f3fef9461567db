# SPDX-License-Identifier: Apache-2.0
"""The progress line, the exit code, the options and what importing them costs."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from fieldfare.common.batch import Item, Progress, Summary, run
from fieldfare.common.batch.progress import ProgressLine, Tally, describe
from fieldfare.common.errors import InputError


@pytest.mark.parametrize(
    ("done", "failed", "skipped", "code"),
    [(5, 0, 0, 0), (0, 0, 5, 0), (4, 1, 0, 3), (0, 1, 4, 3), (0, 5, 0, 1), (0, 0, 0, 1)],
)
def test_exit_code(done: int, failed: int, skipped: int, code: int) -> None:
    assert Summary(done, failed, skipped, 1.0, Path("manifest.jsonl")).exit_code == code


def test_the_line_tells_counts_speed_and_time_left() -> None:
    assert describe(Progress(30, 2, 8, 200, 16.0, 80.0)) == (
        "30 done, 2 failed, 8 done before of 200 | 2 items/s | 1 min 20 s left"
    )
    assert describe(Progress(3, 0, 0, None, 2.0, None)) == "3 done, 0 failed | 1.5 items/s"
    assert describe(Progress(3, 0, 0, 3, 2.0, 0.0, finished=True)).endswith("| took 2 s")
    waiting = Progress(0, 0, 0, 3, 2.0, None, waiting_for="Ray to start")
    assert describe(waiting) == "0 done, 0 failed of 3 | waiting for Ray to start"


def test_time_left_follows_costs_and_leaves_out_what_was_skipped() -> None:
    items = [Item(str(cost), (), (Path(str(cost)),), cost) for cost in (1, 3, 100, 12)]
    tally = Tally(items)
    assert tally.progress().seconds_left is None
    tally.add_skipped(items[2])
    tally.add_done(items[0])
    tally.add_failed(items[1], "bad")
    progress = tally.progress()
    assert progress.seconds_left == pytest.approx(3 * progress.seconds)
    assert tally.errors == {"3": "bad"}


def test_off_a_terminal_only_the_end_is_printed_at_once() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for done in range(5):
        line(Progress(done, 0, 0, 5, 1.0, None))
    line(Progress(5, 0, 0, 5, 1.0, None, finished=True))
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().startswith("5 done, 0 failed of 5 |")


@pytest.mark.parametrize(
    "options",
    [{"engine": "dask"}, {"workers": 0}, {"retries": -1}, {"gpus_per_worker": 1.5}],
)
def test_bad_options_name_themselves(options: dict[str, object], tmp_path: Path) -> None:
    name = next(iter(options)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{name}"):
        run([], dict, tmp_path / "out", settings={}, **options)
    assert not (tmp_path / "out").exists()


def test_no_items_is_exit_1(tmp_path: Path) -> None:
    summary = run([], dict, tmp_path / "out", settings={}, progress=lambda _: None)
    assert summary.exit_code == 1


def test_importing_batch_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "ray", "concurrent.futures.process"]
    code = (
        "import sys, fieldfare.common.batch;"
        f"sys.exit([name for name in {heavy} if name in sys.modules] or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

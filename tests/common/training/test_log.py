# SPDX-License-Identifier: Apache-2.0
"""The CSV log and the picture drawn from it."""

import sys
from pathlib import Path

import pytest

from fieldfare.common.errors import InputError
from fieldfare.common.training.log import TrainingLog


def test_columns_may_grow_and_a_resumed_log_is_the_same_text(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = TrainingLog(path)
    log.add(step=1, loss=0.5)
    log.add(step=2, loss=0.25, score=3.0)
    assert path.read_text().split() == ["step,loss,score", "1,0.5,", "2,0.25,3.0"]
    log.add(step=3, loss=0.1)
    resumed = TrainingLog(path, resumed_step=2)
    assert resumed.rows == log.rows[:2]
    resumed.add(step=3, loss=0.1)
    assert path.read_text().split() == ["step,loss,score", "1,0.5,", "2,0.25,3.0", "3,0.1,"]


def test_fresh_run_starts_a_fresh_log(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    TrainingLog(path).add(step=1, loss=0.5)
    assert TrainingLog(path).rows == []


@pytest.mark.parametrize("text", ["loss\n0.5\n", "step,loss\n1,low\n", "step,loss\n1,2,3\n"])
def test_damaged_log_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"log\.csv: not a training log"):
        TrainingLog(path, resumed_step=5)


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "psnr": 30.0}],
        [{"step": 1, "psnr": 30.0}],
        [{"step": 1, "loss": -0.5}],
        [{"step": 1, "loss": float("nan")}],
    ],
    ids=["loss and metric", "no loss yet", "negative loss", "no number"],
)
def test_curve_is_a_picture(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    log = TrainingLog(tmp_path / "log.csv")
    for row in rows:
        log.add(**row)
    log.draw(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_drawing_leaves_the_users_plotting_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyplot would choose a backend and might open a display."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    log = TrainingLog(tmp_path / "log.csv")
    log.add(step=1, loss=0.5)
    log.draw(tmp_path / "curve.png")

# SPDX-License-Identifier: Apache-2.0
"""The progress line, with a clock that only the test moves."""

import io

import pytest

from fieldfare.common import progress
from fieldfare.common.batch.progress import Progress as BatchCounts
from fieldfare.common.batch.progress import ProgressLine
from fieldfare.common.progress import Progress, StatusLine, format_seconds


class Clock:
    """Stands still unless moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_seconds_as_people_read_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_off_a_terminal_a_line_every_30_s_and_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("train", 100, unit="step", stream=stream) as bar:
        for done in range(1, 81):
            clock.now += 1
            bar.update(done)
    assert stream.getvalue().splitlines() == [
        "train: 30/100 steps (30 %), 1 min 10 s left",
        "train: 60/100 steps (60 %), 40 s left",
        "train: done, 80/100 steps in 1 min 20 s",
    ]


def test_on_a_terminal_it_is_redrawn_five_times_a_second(clock: Clock) -> None:
    stream = Terminal()
    with Progress("train", 4, stream=stream) as bar:
        bar.update(0)
        clock.now += 0.1
        bar.update(1)
        assert stream.getvalue() == ""
        clock.now += 0.1
        bar.update(2)
        assert stream.getvalue() == "\r\x1b[2Ktrain: 2/4 tiles (50 %), 0 s left"
    assert stream.getvalue().endswith("\r\x1b[2Ktrain: done, 2/4 tiles in 0 s\n")
    assert stream.getvalue().count("\n") == 1


def test_what_would_wrap_on_a_terminal_is_cut_but_never_the_last_line(clock: Clock) -> None:
    stream = Terminal()
    line = StatusLine(stream)
    clock.now += 1
    line.show("x" * 200)
    assert stream.getvalue().count("x") == 79
    line.show("y" * 200, last=True)
    assert stream.getvalue().count("y") == 200


def test_error_says_stopped(clock: Clock) -> None:
    stream = io.StringIO()

    def work() -> None:
        with Progress("train", 4, stream=stream) as bar:
            bar.update(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert stream.getvalue() == "train: stopped, 1/4 tiles in 0 s\n"


def test_quiet_prints_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("train", 4, quiet=True, stream=stream) as bar:
        clock.now += 60
        bar.update(4)
    assert stream.getvalue() == ""


def test_what_was_done_before_does_not_count_for_the_speed(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Progress("train", 100, done=90, stream=stream)
    clock.now += 50
    bar.update(95)
    assert "50 s left" in stream.getvalue()


def test_notes_stay_until_changed(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Progress("train", 100, stream=stream)
    clock.now += 30
    bar.update(1, loss=0.123456, psnr=30)
    clock.now += 30
    bar.update(2, loss=0.1, flows=123456)
    assert [line.split("left, ")[1] for line in stream.getvalue().splitlines()] == [
        "loss 0.1235, psnr 30",
        "loss 0.1, psnr 30, flows 123456",
    ]


def test_nothing_to_do_is_no_error(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("train", 0, stream=stream) as bar:
        clock.now += 30
        bar.update(0)
    assert stream.getvalue().splitlines()[0] == "train: 0/0 tiles (0 %)"


def test_batch_runs_show_theirs_on_the_same_line(clock: Clock) -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line(BatchCounts(1, 0, 0, 5, 1.0, 4.0))
    assert stream.getvalue() == ""
    clock.now += 0.2
    line(BatchCounts(2, 0, 0, 5, 2.0, 3.0))
    line(BatchCounts(5, 0, 0, 5, 5.0, None, finished=True))
    assert stream.getvalue() == (
        "\r\x1b[2K2 done, 0 failed of 5 | 1 items/s | 3 s left"
        "\r\x1b[2K5 done, 0 failed of 5 | 1 items/s | took 5 s\n"
    )

# SPDX-License-Identifier: Apache-2.0
"""Resuming, stopping, and what is refused: everything here runs the real `fit`."""

import csv
import dataclasses
import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SETTINGS, Points, SquaredError, ask_to_stop, network
from torch import Tensor, nn

from fieldfare.common.blocks import ScheduledDropPath
from fieldfare.common.errors import InputError, RunError
from fieldfare.common.training import Preempted, TrainSettings, cosine_with_warmup, fit

SCRIPT = Path(__file__).with_name("tiny_training.py")
CHECKPOINT, LOG, CURVE = "checkpoint.pt", "log.csv", "learning_curve.png"


def run(
    folder: Path,
    loss: Callable[..., Tensor] | None = None,
    *,
    model: nn.Module | None = None,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    **changes: Any,
) -> nn.Module:
    """`fit` in a folder, with some settings changed."""
    settings = dataclasses.replace(SETTINGS, **changes)
    return fit(
        model or network(), Points(), loss or SquaredError(), settings, folder,
        validate=validate, quiet=True,
    )  # fmt: skip


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / CHECKPOINT, weights_only=True)


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """A nested state as path -> leaf."""
    if not isinstance(state, dict | list):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {k: v for key, item in items for k, v in flat(item, f"{name}/{key}").items()}


def assert_same(a: Any, b: Any) -> None:
    """Two states hold the same values, bit for bit."""
    first, second = flat(a), flat(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, name


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / LOG, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop", [0, 5, 10])
def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    tmp_path: Path, stop: int, precision: str
) -> None:
    model = run(tmp_path / "whole", model=network(dropout=0.3), precision=precision)
    parts = tmp_path / "parts"
    with pytest.raises(Preempted, match=f"after step {stop + 1};"):
        run(parts, SquaredError(stop, ask_to_stop), model=network(0.3), precision=precision)
    assert checkpoint(parts)["step"] == stop + 1
    torch.manual_seed(99)  # the generator of a new process is somewhere else
    resumed = run(parts, model=network(dropout=0.3), precision=precision)
    assert_same(model.state_dict(), resumed.state_dict())
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(parts))


def test_loading_processes_change_nothing_also_when_resuming(tmp_path: Path) -> None:
    model = run(tmp_path / "whole")
    with pytest.raises(Preempted):
        run(tmp_path / "parts", SquaredError(4, ask_to_stop), workers=2)
    assert_same(run(tmp_path / "parts", workers=2).state_dict(), model.state_dict())


def test_crashed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    def crash() -> None:
        raise ZeroDivisionError

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    model = run(whole)
    with pytest.raises(ZeroDivisionError):
        run(parts, SquaredError(9, crash))
    assert checkpoint(parts)["step"] == 5
    assert [row["step"] for row in rows(parts)] == ["4", "8"]
    resumed = run(parts)
    assert_same(resumed.state_dict(), model.state_dict())
    assert [row["step"] for row in rows(parts)] == ["4", "8", "12"]
    assert rows(parts)[0] == rows(whole)[0]
    assert rows(parts)[2] == rows(whole)[2]


def test_rows_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    def crash() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, SquaredError(9, crash))
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, SquaredError(2, crash))  # in step 8, before its row
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, SquaredError(4, crash), log_every=3)  # in step 10
    assert [row["step"] for row in rows(tmp_path)] == ["4", "6", "9"]


def test_finished_run_returns_its_weights_at_once(tmp_path: Path) -> None:
    model = run(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    again = run(tmp_path, SquaredError(0, lambda: pytest.fail("trained again")))
    assert_same(again.state_dict(), model.state_dict())
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not again.training


def test_validation_sees_the_averaged_weights_and_its_columns_join_the_log(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": float(len(seen))}

    model = run(tmp_path, validate=validate)
    assert len(seen) == 2  # at steps 6 and 12
    assert_same(seen[-1], model.state_dict())
    assert_same(checkpoint(tmp_path)["ema"]["shadow"], model.state_dict())
    table = rows(tmp_path)
    assert list(table[0]) == ["step", "loss", "learning_rate", "score"]
    assert [(row["step"], row["score"]) for row in table] == [
        ("4", ""), ("6", "1.0"), ("8", ""), ("12", "2.0")
    ]  # fmt: skip
    assert (tmp_path / CURVE).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, CURVE, LOG]
    assert_same(run(tmp_path / "blind").state_dict(), model.state_dict())


def test_training_lowers_the_loss_and_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    run(tmp_path, steps=300, log_every=60, checkpoint_every=300)
    table = rows(tmp_path)
    assert float(table[-1]["loss"]) < 0.7 * float(table[0]["loss"])
    for row in table:
        rate = cosine_with_warmup(
            int(row["step"]) - 1, steps=300, peak=1e-2, floor=1e-6, warmup=SETTINGS.warmup_steps
        )
        assert float(row["learning_rate"]) == rate


def test_parameters_learn_at_their_own_share_of_the_rate(tmp_path: Path) -> None:
    start = {name: value.clone() for name, value in network().state_dict().items()}
    kept = run(tmp_path / "frozen", rate_factors=(("0.", 0.0),)).state_dict()
    assert torch.equal(kept["0.weight"], start["0.weight"])
    assert not torch.equal(kept["3.weight"], start["3.weight"])
    moved = []
    for name, factors in (("whole", ()), ("tenth", (("0.", 0.1),))):
        weights = run(tmp_path / name, steps=1, warmup_steps=0, rate_factors=factors).state_dict()
        moved.append(float((weights["0.weight"] - start["0.weight"]).norm()))
    assert moved[1] == pytest.approx(moved[0] / 10, rel=0.01)


def test_layers_that_change_with_the_steps_hear_of_them_also_after_a_resume(tmp_path: Path) -> None:
    def droppy() -> nn.Sequential:
        return nn.Sequential(network(), ScheduledDropPath(0.5, steps=48))

    with pytest.raises(Preempted):
        run(tmp_path / "parts", SquaredError(4, ask_to_stop), model=droppy())
    parts, whole = run(tmp_path / "parts", model=droppy()), run(tmp_path / "whole", model=droppy())
    assert isinstance(parts, nn.Sequential)
    assert parts[1].keep == 1 - 0.5 * SETTINGS.steps / 48
    assert_same(parts.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    "change",
    [{"steps": 13}, {"seed": 1}, {"betas": (0.8, 0.99)}, {"rate_factors": (("0.", 0.1),)}],
)
def test_changed_setting_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match=r"checkpoint\.pt: belongs to a run with other settings"):
        run(tmp_path, **change)


def test_settings_that_do_not_touch_the_result_may_change(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, workers=1, checkpoint_every=7, log_every=1, validate_every=3)


def test_fingerprint_of_the_first_checkpoints_still_holds() -> None:
    assert TrainSettings(steps=1).fingerprint() == "a09fd3ba309a2742"


def test_other_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match=r"checkpoint\.pt: belongs to another network"):
        run(tmp_path, model=nn.Linear(3, 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-100],
        lambda data: b"<html>not found</html>",
        lambda data: data[:40] + bytes(40) + data[80:],
    ],
    ids=["empty", "half", "no end", "web page", "hole"],
)
def test_damaged_checkpoint_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    run(tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"checkpoint\.pt: not a readable checkpoint"):
        run(tmp_path)


@pytest.mark.parametrize("other", [[1, 2], {"weight": torch.zeros(1)}])
def test_file_of_another_kind_is_named(tmp_path: Path, other: Any) -> None:
    torch.save(other, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=r"checkpoint\.pt: not a readable checkpoint"):
        run(tmp_path)


def test_failing_save_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Preempted):
        run(tmp_path, SquaredError(3, ask_to_stop))
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(state: Any, file: io.BufferedIOBase) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    class Diverging(SquaredError):
        def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            value = super().__call__(model, batch)
            return value * float("nan") if self.calls == 7 else value

    with pytest.raises(RunError, match="the loss is nan by step 8"):
        run(tmp_path, Diverging())
    assert checkpoint(tmp_path)["step"] == 5


def test_handlers_are_those_from_before(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Preempted):
        run(tmp_path, SquaredError(3, ask_to_stop))
    run(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_second_ctrl_c_does_not_wait_for_the_step(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on with the step")

    with pytest.raises(KeyboardInterrupt) as stop:
        run(tmp_path, SquaredError(6, twice))
    assert not isinstance(stop.value, Preempted)
    assert checkpoint(tmp_path)["step"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_command_leaves_a_checkpoint_and_nothing_half_written(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Also the data-loading processes get the signal, as from a terminal or a scheduler."""
    command = [sys.executable, str(SCRIPT), "endless", str(tmp_path)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (tmp_path / LOG).exists() and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    step = checkpoint(tmp_path)["step"]
    expected = f"Error: stopped after step {step}; run the same command again to go on"
    assert errors.splitlines()[-1] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, CURVE, LOG]

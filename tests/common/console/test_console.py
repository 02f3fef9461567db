# SPDX-License-Identifier: Apache-2.0
"""How a command fails, what it prints, and the options all commands share."""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions
from fieldfare.common.errors import InputError, RunError


@pytest.fixture(autouse=True)
def _no_traceback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(console.TRACEBACK_VARIABLE, raising=False)
    return


def run(error: BaseException | None = None, *arguments: str) -> Result:
    """A command that raises, or emits a result where there is nothing to raise."""

    @click.group(cls=console.CommandGroup)
    def main() -> None: ...

    @main.command()
    @console.options(JsonOptions)
    def verb(options: JsonOptions) -> None:
        console.say("working")
        if error:
            raise error
        console.emit({"done": 3}, as_json=options.as_json, text="3 done")

    return CliRunner().invoke(main, ["verb", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.tif: no such file"), 2, "a.tif: no such file"),
        (RunError("the loss is nan"), 1, "the loss is nan"),
        (InputError("two\nlines,\n  one error"), 2, "two lines, one error"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.tif"), 1,
            "out.tif: the disk is full; free some space and run the same command again",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"), 1,
            "the disk is full; free some space and run the same command again",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 1, "out: Permission denied"),
        (OSError("odd"), 1, "odd"),
        (MemoryError(), 1, "out of memory; use a smaller batch, tile or input"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), 1,
            "out of memory; use a smaller batch, tile or input",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9"), 1,
            "out of memory; use a smaller batch, tile or input",
        ),
        (KeyError("x"), 1, "KeyError: 'x' (set FIELDFARE_TRACEBACK=1 for details)"),
        (KeyboardInterrupt(), 130, "interrupted; nothing half-written is left"),
        (KeyboardInterrupt("stopped after step 3"), 130, "stopped after step 3"),
        (click.Abort(), 130, "interrupted; nothing half-written is left"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_each_error_is_one_line_and_its_exit_code(
    error: BaseException, code: int, line: str
) -> None:
    for arguments in ((), ("--json",)):
        result = run(error, *arguments)
        assert result.exit_code == code
        assert result.stdout == ""
        assert result.stderr == f"working\nError: {line}\n"


@pytest.mark.parametrize("error", [InputError("bad"), KeyError("x")])
def test_traceback_is_shown_where_asked_for(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(console.TRACEBACK_VARIABLE, "1")
    result = run(error)
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_clicks_own_errors_and_exits_stay_what_they_are() -> None:
    usage = run(click.UsageError("no such thing"))
    assert usage.exit_code == 2
    assert "Error: no such thing" in usage.stderr
    assert run(click.exceptions.Exit(7)).exit_code == 7
    assert run(SystemExit(3)).exit_code == 3


def test_reader_that_goes_away_is_no_error() -> None:
    """As in `rs-sr models | head -1`."""
    code = """
import click
from fieldfare.common import console
@click.group(cls=console.CommandGroup, invoke_without_command=True)
def main():
    for number in range(100_000):
        click.echo(number)
main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_sigterm_ends_as_ctrl_c_does(tmp_path: Path) -> None:
    code = f"""
import os, signal, click
from pathlib import Path
from fieldfare.common import console
from fieldfare.common.files import atomic_path
@click.group(cls=console.CommandGroup)
def main():
    pass
@main.command()
def verb():
    with atomic_path({str(tmp_path / "a.txt")!r}) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
main(["verb"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == "Error: terminated; nothing half-written is left\n"
    assert not list(tmp_path.iterdir())


def test_json_is_one_object_on_stdout_and_all_else_is_on_stderr() -> None:
    result = run(None, "--json")
    assert json.loads(result.stdout) == {"done": 3}
    assert result.stderr == "working\n"
    assert run().stdout == "3 done\n"


def test_json_holds_numbers_as_numbers_and_never_nan(capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {
        "path": Path("a/b.tif"),
        "float32": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "tensor": torch.tensor(2),
        "array": np.arange(3),
        "rows": ({"psnr": float("inf")}, {"psnr": np.float64("nan")}),
        "nothing": None,
        7: "key",
    }
    console.emit(result, as_json=True, text="")
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert json.loads(output, parse_constant=pytest.fail) == {
        "path": "a/b.tif",
        "float32": 0.5,
        "count": 3,
        "flag": True,
        "tensor": 2,
        "array": [0, 1, 2],
        "rows": [{"psnr": None}, {"psnr": None}],
        "nothing": None,
        "7": "key",
    }


def test_names_that_are_no_utf8_are_said_as_they_are(capfdbinary: pytest.CaptureFixture) -> None:
    name = b"a\xff.tif".decode(errors="surrogateescape")
    console.emit({}, as_json=False, text=name)
    console.say(f"{name}: read")
    assert capfdbinary.readouterr() == (b"a\xff.tif\n", b"a\xff.tif: read\n")
    result = run(InputError(f"{name}: no such file"))
    assert result.exit_code == 2
    assert b"a\xff.tif: no such file" in result.stderr_bytes


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("working", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_table_aligns_columns() -> None:
    rows = [{"model": "bicubic", "psnr": 26.123456, "n": 7}, {"model": "x", "psnr": 3.0, "n": 12}]
    assert console.table(rows).splitlines() == [
        "model    psnr   n",
        "bicubic  26.12  7",
        "x        3      12",
    ]
    assert console.table([]) == "(none)"

# SPDX-License-Identifier: Apache-2.0
"""The shell around every command: failures are one line and an exit code.

Exit codes: 0 done, 2 bad input or usage, 3 some of many inputs failed, 1 anything else, 130
interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from ..errors import InputError, RunError
from .output import raw

TRACEBACK_VARIABLE = "FIELDFARE_TRACEBACK"


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the work ends as at Ctrl-C, and temporary files go."""


class CommandGroup(click.Group):
    """A command whose failures are one line on stderr and an exit code, never a traceback.

    Set FIELDFARE_TRACEBACK=1 to see the traceback after all.
    """

    def invoke(self, context: click.Context) -> Any:
        try:
            with _sigterm_raises():
                return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click says or ends it
        except (KeyboardInterrupt, click.Abort) as stop:
            ended = isinstance(stop, Terminated)
            text = "terminated" if ended else "interrupted"
            _fail(str(stop) or f"{text}; nothing half-written is left", 143 if ended else 130)
        except InputError as error:
            _fail(str(error), 2)
        except RunError as error:
            _fail(str(error), 1)
        except OSError as error:
            _fail(_describe(error), 1)
        except Exception as error:
            name = type(error).__name__
            if name in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in str(error):
                _fail("out of memory; use a smaller batch, tile or input", 1)
            _fail(f"{name}: {error} (set {TRACEBACK_VARIABLE}=1 for details)", 1)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}the disk is full; free some space and run the same command again"
    return f"{where}{error.strerror or error}"


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exc()
    click.echo(raw(f"Error: {' '.join(message.split())}"), err=True)
    sys.exit(code)

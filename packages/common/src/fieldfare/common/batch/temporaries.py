# SPDX-License-Identifier: Apache-2.0
"""Hidden folders beside the outputs, where workers write; what a killed run left is removed."""

import os
import re
import shutil
import socket
from pathlib import Path

from .items import Item

_NAME = re.compile(r"\.fieldfare\.(?P<host>.+)\.(?P<pid>\d+)\.\d+")


def temporary_paths(item: Item, attempt: int) -> tuple[Path, ...]:
    """One path for each output: same file name, in a folder named by host, driver and attempt.

    Args:
        attempt: number no other attempt of this driver has.
    """
    folder = f".fieldfare.{socket.gethostname()}.{os.getpid()}.{attempt}"
    return tuple(output.parent / folder / output.name for output in item.outputs)


def remove_stale(parent: Path) -> None:
    """Remove the temporary folders in parent, except those of another driver that is alive here.

    Of a driver on another host nothing is known; two runs that write to one folder at the same
    time share a manifest, whose lock keeps the second one out.
    """
    try:
        entries = list(os.scandir(parent))
    except OSError:  # not there yet
        return
    for entry in entries:
        match = _NAME.fullmatch(entry.name)
        if match and not _belongs_to_other_run(match["host"], int(match["pid"])):
            shutil.rmtree(entry.path, ignore_errors=True)


def _belongs_to_other_run(host: str, pid: int) -> bool:
    if host != socket.gethostname() or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, someone else's
        return True
    return True

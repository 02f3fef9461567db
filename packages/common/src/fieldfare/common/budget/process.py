# SPDX-License-Identifier: Apache-2.0
"""What this process has taken so far: time since it was started, memory now and at its peak."""

import os
import time
from pathlib import Path

STATUS = Path("/proc/self/status")
STAT = Path("/proc/self/stat")
_FIRST_SEEN = time.monotonic()


def running_seconds() -> float:
    """Seconds since the process was started, its imports included.

    Where the system does not tell, since this module was imported.
    """
    try:
        started = float(STAT.read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        return time.monotonic() - _FIRST_SEEN


def held_bytes() -> int:
    """Resident memory now; 0 where the system does not tell."""
    return _field("VmRSS")


def peak_bytes() -> int:
    """The most resident memory that the process has had; 0 where the system does not tell."""
    return _field("VmHWM")


def _field(name: str) -> int:
    if not STATUS.exists():
        return 0
    lines = STATUS.read_text().splitlines()
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else 0

# SPDX-License-Identifier: Apache-2.0
"""How much memory this process holds and has held, as the system counts it."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes in memory now; the peak where the system tells no more."""
    return _field(STATUS, "VmRSS") or peak()


def peak() -> int:
    """The most bytes in memory so far, or since `reset_peak`."""
    if known := _field(STATUS, "VmHWM"):
        return known
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """Count the peak anew from what is held now, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")


def release() -> None:
    """Ask the C library to hand freed memory back, so that `resident` counts what is in use."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def return_freed_at_once() -> None:
    """Have the C library give freed arrays back to the system at once, for the whole process.

    By itself glibc keeps those of up to 32 MB for later: measured, a network of 80 MB of tensors
    took 180 MB after some tiles. Against that, each new array costs the time to clear its pages.
    """
    threshold = -3  # M_MMAP_THRESHOLD of mallopt; set by hand, it no longer grows
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(threshold, 4 * 2**20)


def mebibytes(amount: float) -> str:
    """As people read it: 850 MiB, 2.1 GiB."""
    if amount < 1000 * 2**20:
        return f"{amount / 2**20:.0f} MiB"
    return f"{amount / 2**30:.2f} GiB"


def _field(path: Path, name: str) -> int:
    """Bytes of a line `Name: 123 kB`; 0 without it."""
    if not os.access(path, os.R_OK):
        return 0
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0

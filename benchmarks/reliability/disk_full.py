# SPDX-License-Identifier: Apache-2.0
"""Fill the disk under running commands: one line says so, nothing half-written is left.

    python benchmarks/reliability/disk_full.py "wl-precode infer h.npz -o {out}/w.npz" ...

Each command writes into small file systems in memory, from one page up to what its outputs need
(takes root, for mount). Where it does not fit the command must end with 1 or 2 and say that the
disk is full; what stands under a final name must be whole, and no temporary file may stay.
"""

import subprocess
import sys
from pathlib import Path

from campaign import Command, digests, fresh_folder, hidden, not_whole, parser, verdict


def sizes(whole: int) -> list[int]:
    """Of file systems to try, bytes."""
    return [4096, *(int(whole * share) // 4096 * 4096 + 4096 for share in (0.1, 0.5, 0.9))]


def on_small_disk(command: Command, size: int, whole: dict[str, str]) -> str:
    """What went wrong, empty if nothing did."""
    with fresh_folder() as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            raise SystemExit("cannot mount a file system in memory; run as root")
        try:
            folder = Path(name)
            code, told = command.run(folder)
            if code == 0 and digests(folder) == whole:
                return ""
            if code not in (1, 2) or "full" not in told:
                return f"ends with {code} and says {told.strip()[-200:]!r}"
            if half := not_whole(folder, whole):
                return f"{half[0]} is not whole"
            if left := hidden(folder):
                return f"{left[0]} is left"
        finally:
            subprocess.run(["umount", name], check=True)
    return ""


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("commands", nargs="+")
    options = arguments.parse_args()
    tried, failures = 0, {}
    for line in options.commands:
        command = Command(line)
        with fresh_folder() as name:
            code, told = command.run(Path(name))
            if code:
                raise SystemExit(f"{line}: ends with {code} when left alone: {told}")
            whole = digests(Path(name))
            needed = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file())
        for size in sizes(needed):
            tried += 1
            if story := on_small_disk(command, size, whole):
                failures[f"{line} on {size} bytes"] = story
    return verdict("full disks", tried, failures)


if __name__ == "__main__":
    sys.exit(main())

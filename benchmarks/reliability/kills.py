# SPDX-License-Identifier: Apache-2.0
"""Kill running commands at random moments; nothing half-written, and the same command goes on.

    python benchmarks/reliability/kills.py --kills 1000 \\
        "wl-precode infer h.npz -o {out}/w.npz --overwrite" "rs-sr infer tile.tif -o {out}/x4.tif"

After each kill (SIGKILL, SIGTERM or SIGINT) every file under its final name must be whole, that is
the same bytes as of a run that was left alone; the same command, run again, must end with the same
files and leave no temporary ones.
"""

import random
import signal
import sys
import time
from pathlib import Path

from campaign import Command, digests, fresh_folder, hidden, not_whole, parser, verdict

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def killed(command: Command, whole: dict[str, str], seconds: float, draw: random.Random) -> str:
    """One kill and the run after it; what went wrong, empty if nothing did."""
    with fresh_folder() as name:
        folder = Path(name)
        process = command.start(folder)
        moment, which = draw.uniform(0, seconds), draw.choice(SIGNALS)
        time.sleep(moment)
        process.send_signal(which)
        process.communicate()
        told = f"{which.name} after {moment:.2f} of {seconds:.2f} s"
        if half := not_whole(folder, whole):
            return f"{told}: {half[0]} is not whole"
        code, said = command.run(folder)
        if code:
            return f"{told}: the same command then ends with {code}: {said.strip()[-200:]}"
        if digests(folder) != whole:
            return f"{told}: the same command then gives other files"
        if left := hidden(folder):
            return f"{told}: {left[0]} is left"
    return ""


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("commands", nargs="+")
    arguments.add_argument("--kills", type=int, default=100, help="Of all commands together.")
    options = arguments.parse_args()
    draw = random.Random(options.seed)
    runs = []
    for line in options.commands:
        command = Command(line)
        with fresh_folder() as name:
            began = time.perf_counter()
            code, told = command.run(Path(name))
            if code:
                raise SystemExit(f"{line}: ends with {code} when left alone: {told}")
            runs.append((command, digests(Path(name)), time.perf_counter() - began))
    failures = {}
    for number in range(options.kills):
        command, whole, seconds = runs[number % len(runs)]
        if story := killed(command, whole, seconds, draw):
            failures[f"{number} {command.line}"] = story
    return verdict("kills", options.kills, failures)


if __name__ == "__main__":
    sys.exit(main())

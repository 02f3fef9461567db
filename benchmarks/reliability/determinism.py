# SPDX-License-Identifier: Apache-2.0
"""The same command gives the same bytes: run to run, whatever threads, clock zone, hash seed.

    python benchmarks/reliability/determinism.py "wl-precode infer h.npz -o {out}/w.npz" ...

Give one command in several forms, joined by ` == `, where they must agree too, for instance with
another `--batch` or `--workers`.
"""

import sys
from pathlib import Path

from campaign import Command, digests, fresh_folder, parser, verdict

SURROUNDINGS = (
    {},
    {"OMP_NUM_THREADS": "2"},
    {"TZ": "Asia/Kathmandu", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "7"},
)


def outputs(line: str, changed: dict[str, str]) -> dict[str, str]:
    """Of one run."""
    with fresh_folder() as name:
        code, told = Command(line).run(Path(name), **changed)
        return {"exit code": str(code), "told": told if code else ""} | digests(Path(name))


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("commands", nargs="+")
    options = arguments.parse_args()
    tried, failures = 0, {}
    for text in options.commands:
        forms = [line.strip() for line in text.split(" == ")]
        first = outputs(forms[0], {})
        if first["exit code"] != "0":
            raise SystemExit(f"{forms[0]}: {first['told']}")
        for line in forms:
            for changed in SURROUNDINGS:
                tried += 1
                found = outputs(line, changed)
                other = sorted(
                    k for k in first.keys() | found.keys() if first.get(k) != found.get(k)
                )
                if other:
                    failures[f"{line} {changed}"] = f"differs in {', '.join(other)}"
    return verdict("determinism", tried, failures)


if __name__ == "__main__":
    sys.exit(main())

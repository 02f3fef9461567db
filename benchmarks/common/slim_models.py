# SPDX-License-Identifier: Apache-2.0
"""`fieldfare slim` and `fieldfare cascade` on the packaged models, as a user calls them.

Usage: python benchmarks/common/slim_models.py --data FOLDER [--only buildings]

FOLDER holds buildings_more/scenes.csv and pcaps/labels.csv. Qualities are on the splits val, by
which the steps are chosen; nothing is measured on test. Needs the domains' packages installed.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

CASES = {
    "buildings": ("slim unetplusplus_lite0_drone --target 8GMAC", "buildings_more/scenes.csv"),
    "netmamba": ("slim netmamba_small --target 450MMAC", "pcaps/labels.csv"),
    "netfound": ("slim netfound_tiny --target 2.2GMAC", "pcaps/labels.csv"),
    "cascade": ("cascade netmamba_small netfound_tiny", "pcaps/labels.csv"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(CASES), action="append")
    options = parser.parse_args()
    for name in options.only or CASES:
        verb, data = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / f"{name}.safetensors"
            command = ["fieldfare", *verb.split(), "--data", str(options.data / data)]
            done = subprocess.run(
                [*command, "-o", str(target), "--json", "--quiet"],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            told = json.loads(done.stdout)
            print(f"{name}: {told['metric']}; {target.stat().st_size} bytes")
            rows = told["rows"]
            for row in rows.items() if isinstance(rows, dict) else enumerate(rows):
                print(*row, flush=True)


if __name__ == "__main__":
    main()

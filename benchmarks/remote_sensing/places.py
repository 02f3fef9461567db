# SPDX-License-Identifier: Apache-2.0
"""The table that the packaged building model was trained on: three places, and one to choose by.

    python benchmarks/remote_sensing/kampala.py -o kampala/ \\
        --data "$FIELDFARE_DATA/buildings/kampala_oam"
    python benchmarks/remote_sensing/places.py kampala/ -o train.csv \\
        --data "$FIELDFARE_DATA/buildings_more"

Patches are drawn in proportion to ground; small places stand in the table several times, so that
Zanzibar's 27 hectares, most of them without a roof, do not drown Kampala's 2.
"""

import argparse
import csv
from pathlib import Path

TIMES = {"A west": 2, "banepa_south": 2}
"""How often the rows of an area stand in the table; others once."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kampala", type=Path, help="Folder that kampala.py wrote.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for table in (options.kampala / "train.csv", options.data / "scenes.csv"):
        with open(table, newline="") as file:
            for row in csv.DictReader(file):
                if row["split"] != "test":
                    paths = {name: str((table.parent / row[name]).resolve()) for name in row}
                    rows += [row | {n: paths[n] for n in ("image", "labels")}] * TIMES.get(
                        row["area"], 1
                    )
    with open(options.output, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(options.output)


if __name__ == "__main__":
    main()

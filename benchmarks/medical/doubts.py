# SPDX-License-Identifier: Apache-2.0
"""How often the warnings of `med-seg infer` come where they should, and where they should not.

    python benchmarks/medical/doubts.py --data "$FIELDFARE_DATA/brain" --phantoms phantoms/

Takes three real gliomas and every case folder of `med-seg phantom`; each is looked at as it is and
with every fault put into it. Prints for each fault in how many cases it was named, and of the clean
cases any that was warned of. T1 and T1ce can only be told apart where something enhances.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from fieldfare.common import console
from fieldfare.medical.data.cases import find_case
from fieldfare.medical.data.doubts import doubts
from fieldfare.medical.data.loading import load
from fieldfare.medical.data.naming import MODALITIES
from fieldfare.medical.data.preparation import prepare

REAL = ("TCGA-FG-6692", "TCGA-DU-7294", "BraTS-GLI-00001-000")
SIDES = ("left-right", "front-back", "up-down")


def faults(images: np.ndarray):
    """Name, words of the warning, images with the fault."""
    yield "t1 and t1ce exchanged", "t1ce are perhaps exchanged", images[[1, 0, 2, 3]]
    yield "t2 and flair exchanged", "flair are perhaps exchanged", images[[0, 1, 3, 2]]
    for index, name in enumerate(MODALITIES):
        twice = images.copy()
        twice[index] = images[index - 1]
        yield "one image twice", "one and the same", twice
        for axis, side in enumerate(SIDES):
            turned = images.copy()
            turned[index] = np.flip(images[index], axis)
            yield f"mirrored {side}", f"{name} is perhaps mirrored", turned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--phantoms", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    folders = [options.data / name for name in REAL] if options.data else []
    for phantoms in options.phantoms:
        folders += sorted(path for path in phantoms.iterdir() if path.is_dir())
    tried, named, alarms = Counter(), Counter(), 0
    for folder in folders:
        loaded = load(find_case(folder))
        affine = loaded.reference.affine
        for told in doubts(prepare(loaded.images, affine, 2.0)):
            alarms += 1
            print(f"{folder}: {told}")
        for fault, words, images in faults(loaded.images):
            tried[fault] += 1
            named[fault] += any(words in told for told in doubts(prepare(images, affine, 2.0)))
    print(console.table([{"fault": f, "tried": tried[f], "named": named[f]} for f in tried]))
    print(f"{len(folders)} clean cases, {alarms} warnings")


if __name__ == "__main__":
    main()

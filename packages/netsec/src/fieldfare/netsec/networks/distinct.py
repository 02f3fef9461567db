# SPDX-License-Identifier: Apache-2.0
"""Equal inputs among many, so that a network sees each of them once."""

import numpy as np


def distinct_rows(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that differ.

    Args:
        arrays: (N, ...) each; a row is that of all of them.

    Returns:
        (K,) the first row of each kind, ascending; (N,) the place of each row's kind among them.
    """
    count = len(arrays[0])
    parts = [np.ascontiguousarray(array).reshape(count, -1).view(np.uint8) for array in arrays]
    joined = np.ascontiguousarray(np.concatenate(parts, axis=1))
    width, content = joined.shape[1], joined.tobytes()
    seen: dict[bytes, int] = {}
    first: list[int] = []
    place = np.empty(count, np.int64)
    for row in range(count):
        key = content[row * width : (row + 1) * width]
        if (found := seen.get(key)) is None:
            found = seen[key] = len(first)
            first.append(row)
        place[row] = found
    return np.array(first, np.int64), place

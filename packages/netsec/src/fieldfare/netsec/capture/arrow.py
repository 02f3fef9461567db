# SPDX-License-Identifier: Apache-2.0
"""Columns as Arrow arrays, made of their buffers.

`pyarrow.array` asks pandas what it is given, and so loads pandas wherever that is installed, which
takes longer than to read a small capture.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def number_array(values: np.ndarray) -> pa.Array:
    """(N,) numbers, NaN among them as it is; shares the memory of a contiguous array."""
    kind = pa.from_numpy_dtype(values.dtype)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def text_array(values: Sequence[str]) -> pa.StringArray:
    """Texts, less than 2 GiB of them in all."""
    whole = "".join(values)
    encoded = whole.encode()
    lengths = list(map(len, values))
    if len(encoded) != len(whole):  # some signs take several bytes
        lengths = [len(value.encode()) for value in values]
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(encoded))


def vector_array(values: np.ndarray) -> pa.ListArray:
    """(N, E) numbers as N lists of E."""
    count, width = values.shape
    offsets = number_array(np.arange(count + 1, dtype=np.int32) * np.int32(width))
    return pa.ListArray.from_arrays(offsets, number_array(values.reshape(-1)))

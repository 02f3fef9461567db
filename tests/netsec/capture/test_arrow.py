# SPDX-License-Identifier: Apache-2.0
"""Arrow arrays made of buffers are those that pyarrow makes itself."""

import numpy as np
import pyarrow as pa
import pytest

from fieldfare.netsec.capture.arrow import number_array, text_array, vector_array


@pytest.mark.parametrize("kind", ["u1", "u2", "i8", "f4", "f8"])
@pytest.mark.parametrize("step", [1, 2])
def test_numbers(kind, step):
    for values in (np.arange(12), np.zeros(0)):
        values = values.astype(kind)[::step]
        assert number_array(values).equals(pa.array(values))


def test_numbers_that_are_none_stay():
    found = number_array(np.array([np.nan, 1.0]))
    assert found.null_count == 0
    assert np.isnan(found[0].as_py())


@pytest.mark.parametrize("values", [[], [""], ["10.0.0.1", "", "fe80::1", "Ünïcode"]])
def test_texts(values):
    found = text_array(values)
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 3), (4, 2)])
def test_vectors(shape):
    values = np.random.default_rng(0).random(shape, np.float32)
    found = vector_array(values)
    found.validate(full=True)
    assert found.equals(pa.array(list(values), pa.list_(pa.float32())))

# SPDX-License-Identifier: Apache-2.0
"""What the compiled pass needs of numba that numba does not document."""

import numpy as np
import pytest

from fieldfare.netsec.capture import compiled

WHAT_TO_DO = (
    "numba no longer takes _nrt=False as it did (an undocumented option that leaves out its "
    "counting of references). Leave it out in capture/compiled.py: everything still works, the "
    "pass takes about three times as long. Then look for what numba offers instead, or pin numba "
    "below this version in pyproject.toml; benchmarks/netsec/capture_speed.py tells what it costs"
)


def swapped(pair):
    """Takes both arrays out of a tuple, which numba counts references for."""
    first, second = pair
    return second[0] - first[0] if len(first) > len(second) else first[0] - second[0]


@pytest.mark.skipif(not compiled.COMPILED, reason="the pass runs without numba here")
def test_numba_can_still_be_told_to_count_no_references():
    import numba
    from numba.core.errors import NumbaError

    arrays = (np.arange(3.0), np.arange(2.0))

    def machine_code(**options):
        built = numba.njit(**options)(swapped)
        assert built(arrays) == 0.0
        return "".join(built.inspect_llvm().values())

    try:
        without = machine_code(_nrt=False)
    except (KeyError, TypeError, NumbaError) as error:
        pytest.fail(f"{WHAT_TO_DO} ({error})")
    assert "NRT_incref" in machine_code(), "this function tells nothing any more: choose another"
    assert "NRT_incref" not in without, WHAT_TO_DO

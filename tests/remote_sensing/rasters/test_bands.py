# SPDX-License-Identifier: Apache-2.0
"""Bands in groups, and numbers that are none."""

import numpy as np
import pytest

from fieldfare.common.errors import RunError
from fieldfare.remote_sensing.rasters.bands import band_groups, finite


def test_groups_of_bands_repeat_the_last():
    assert band_groups(4, 3) == [[0, 1, 2], [3, 3, 3]]
    assert band_groups(5, 3) == [[0, 1, 2], [3, 4, 4]]
    assert band_groups(1, 3) == [[0, 0, 0]]
    assert band_groups(2, 1) == [[0], [1]]


def test_no_number_from_a_network_is_an_error():
    with pytest.raises(RunError, match="no numbers"):
        finite(np.array([1, np.nan]))

# SPDX-License-Identifier: Apache-2.0
"""Ids of many flows at a time are those of each by itself."""

import numpy as np
import pytest

from fieldfare.netsec.capture.community import community_id, community_ids


def test_the_ids_that_the_specification_gives() -> None:
    ends = bytes([128, 232, 110, 120]), bytes([66, 35, 250, 204])
    assert community_id(*ends, 6, (34855, 80)) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
    assert community_id(*ends[::-1], 6, (80, 34855)) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_many_at_a_time(count: int) -> None:
    rng = np.random.default_rng(1)
    family = rng.choice([4, 6], count).astype(np.uint8)
    source, destination = rng.choice([0, 1, 255], (2, count, 16)).astype(np.uint8)
    destination[: count // 4] = source[: count // 4]
    source[family == 4, 4:] = destination[family == 4, 4:] = 0
    protocol = rng.choice([1, 6, 17, 47, 58, 132], count).astype(np.uint8)
    ports = rng.choice([0, 1, 80, 65535], (2, count)).astype(np.uint16)
    icmp = (rng.integers(0, 256, count) * 256 + rng.integers(0, 3, count)).astype(np.uint16)
    expected = []
    for row in range(count):
        width = 4 if family[row] == 4 else 16
        low, high = (int(side[row]) for side in ports)
        if protocol[row] in (1, 58):
            low, high = divmod(int(icmp[row]), 256)
        ends = [side[row, :width].tobytes() for side in (source, destination)]
        expected.append(community_id(ends[0], ends[1], int(protocol[row]), (low, high)))
    found = community_ids(family, (source, destination), protocol, (ports[0], ports[1]), icmp)
    assert found == expected

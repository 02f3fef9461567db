# SPDX-License-Identifier: Apache-2.0
"""Steps after the network: known answers of each, alone and together."""

import numpy as np
import pytest

from fieldfare.common.errors import InputError
from fieldfare.medical.inference.postprocessing import (
    HIGH,
    LOW,
    check_steps,
    fill_holes,
    keep_certain,
    mend,
    threshold_of,
)


def maps() -> np.ndarray:
    """A part that is certain somewhere, one that is not, and one below both thresholds."""
    whole = np.zeros((12, 12, 12), np.float32)
    whole[1:4, 1:4, 1:4] = LOW + 0.05
    whole[2, 2, 2] = HIGH + 0.05
    whole[7:10, 7:10, 7:10] = HIGH - 0.05
    whole[1:4, 7:10, 1:4] = LOW - 0.05
    return np.stack([whole, whole * 0, whole * 0])


def test_hysteresis_keeps_what_is_joined_to_something_certain() -> None:
    found = maps()
    keep_certain(found, ("hysteresis",), 0.5)
    counted = found[0] >= threshold_of(("hysteresis",), 0.5)
    wanted = np.zeros_like(counted)
    wanted[1:4, 1:4, 1:4] = True
    assert np.array_equal(counted, wanted)


def test_without_hysteresis_nothing_changes() -> None:
    found = maps()
    keep_certain(found, ("fill-holes",), 0.5)
    assert np.array_equal(found, maps())
    assert threshold_of(("fill-holes",), 0.3) == 0.3


def test_hysteresis_is_harder_to_please_where_the_threshold_is_higher() -> None:
    """At 0.8 the low threshold is 0.64 and the high one 0.88: nothing of `maps` reaches it."""
    found = maps()
    keep_certain(found, ("hysteresis",), 0.8)
    assert not (found[0] >= threshold_of(("hysteresis",), 0.8)).any()


@pytest.mark.parametrize(("scheme", "enhancing"), [("brats2020", 4), ("brats2023", 3)])
def test_holes_of_the_core_become_core_and_of_the_tumour_oedema(
    scheme: str, enhancing: int
) -> None:
    labels = np.zeros((11, 11, 11), np.uint8)
    labels[1:10, 1:10, 1:10] = 2
    labels[2, 2, 2] = 0  # enclosed by oedema
    labels[4:7, 4:7, 4:7] = enhancing
    labels[5, 5, 5] = 2  # oedema enclosed by a rim
    labels[9, 5, 5] = 0  # open to the outside
    before = labels.copy()
    filled = fill_holes(labels, scheme)
    assert np.array_equal(labels, before), "the input was changed"
    wanted = before.copy()
    wanted[2, 2, 2], wanted[5, 5, 5] = 2, 1
    assert np.array_equal(filled, wanted)


def test_of_an_empty_result_nothing_is_filled() -> None:
    empty = np.zeros((3, 3, 3), np.uint8)
    assert not fill_holes(empty, "brats2023").any()


def test_holes_are_filled_before_small_enhancing_tumour_is_replaced() -> None:
    labels = np.zeros((7, 7, 7), np.uint8)
    labels[1:6, 1:6, 1:6] = 3
    labels[3, 3, 3] = 0
    mended = mend(labels, ("fill-holes", "replace-small-et"), "brats2023", 1.0)
    assert (mended[1:6, 1:6, 1:6] == 1).all()


def test_an_unknown_step_is_named() -> None:
    with pytest.raises(InputError, match="--postprocess fill: is none of none, hysteresis"):
        check_steps("hysteresis,fill")

# SPDX-License-Identifier: Apache-2.0
"""Labels of phantoms: what scans show of a tumour, its faint border with it."""

import numpy as np
import pytest

from fieldfare.medical.data.naming import MODALITIES
from fieldfare.medical.phantoms.noise import Grid
from fieldfare.medical.phantoms.raters import draw_labels, visible_labels, without_crumbs
from fieldfare.medical.phantoms.scanner import Slices

GRID = Grid((0, 0, 0), (20, 20, 40), 1.0)
THIN = dict.fromkeys(MODALITIES, Slices(2, 1.0))


@pytest.fixture
def block():
    """10 mm of enhancing tumour between 4 mm of oedema on either side; (3, X, Y, Z)."""
    fractions = np.zeros((3, *GRID.shape), np.float32)
    fractions[1, 4:16, 4:16, 11:29] = 1
    fractions[1, 4:16, 4:16, 15:25] = 0
    fractions[2, 4:16, 4:16, 15:25] = 1
    return fractions


def length(mask):
    """Of the mask across the slices, mm."""
    return int(mask[10, 10].sum())


def test_labels_are_what_can_be_seen():
    """A fifth of tumour in a voxel is drawn, a tenth is not; a third of core makes it core."""
    columns = {(0.0, 0.2, 0.0): 2, (0.0, 0.1, 0.0): 0, (0.3, 0.5, 0.0): 1, (0.2, 0.7, 0.0): 2}
    columns |= {(0.1, 0.1, 0.6): 3, (0.4, 0.0, 0.4): 3, (0.4, 0.2, 0.2): 1, (0.0, 0.9, 0.05): 2}
    fractions = np.array(list(columns), np.float32).T.reshape(3, -1, 1, 1)
    assert visible_labels(fractions).ravel().tolist() == list(columns.values())


def test_thick_slices_make_it_longer_across_them_and_no_wider_along_them(block):
    thin = draw_labels(GRID, block, THIN)
    thick = draw_labels(GRID, block, dict.fromkeys(MODALITIES, Slices(2, 6.0)))
    for least, long in ((1, 18), (3, 10)):
        assert length(thin >= least) == long
        assert long + 2 <= length(thick >= least) <= long + 6
    assert np.array_equal(thick[:, 10, 20], thin[:, 10, 20])


def test_the_whole_is_seen_on_flair_and_the_enhancing_part_with_contrast_agent(block):
    thin = draw_labels(GRID, block, THIN)
    of_flair = draw_labels(GRID, block, THIN | {"flair": Slices(2, 6.0)})
    of_t1ce = draw_labels(GRID, block, THIN | {"t1ce": Slices(2, 6.0)})
    assert length(of_flair > 0) > length(thin > 0) == length(of_t1ce > 0)
    assert length(of_flair == 3) == length(thin == 3) < length(of_t1ce == 3)


def test_crumbs_go_but_the_largest_part_stays():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:6, 1:6, 1:6], labels[9:11, 9:11, 9:11] = 1, 2
    kept = without_crumbs(labels, 1.0)
    assert (kept == 1).sum() == 125
    assert not (kept == 2).any()
    labels[1:6] = 0
    assert (without_crumbs(labels, 1.0) == 2).sum() == 8

# SPDX-License-Identifier: Apache-2.0
"""Rows survive an interruption, and only those of the same settings."""

import numpy as np
import pytest

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.rasters.rows import RowStore, kept_rows


def test_rows_are_regrouped_in_order(tmp_path):
    store = RowStore(tmp_path / "out.tif", {"seed": 1}, resume=True)
    whole = np.arange(2 * 23 * 3).reshape(2, 23, 3)
    for first, last in ((0, 5), (5, 6), (6, 17), (17, 23)):
        store.add(last - first, values=whole[:, first:last])
    blocks = list(store.read("values", 8, nothing=lambda rows: np.zeros((2, rows, 3))))
    assert [block.shape[1] for block in blocks] == [8, 8, 7]
    assert np.array_equal(np.concatenate(blocks, axis=1), whole)


@pytest.mark.parametrize(("resume", "seed", "kept"), [(True, 1, 4), (False, 1, 0), (True, 2, 0)])
def test_rows_of_the_same_run_are_kept(tmp_path, resume, seed, kept):
    store = RowStore(tmp_path / "out.tif", {"seed": 1}, resume=True)
    store.add(4, values=np.ones((1, 4, 2)))
    store.close()
    assert RowStore(tmp_path / "out.tif", {"seed": seed}, resume=resume).done == kept


def test_rows_after_a_gap_are_dropped(tmp_path):
    store = RowStore(tmp_path / "out.tif", {}, resume=True)
    store.add(4, values=np.ones((1, 4, 2)))
    store.add(4, values=np.ones((1, 4, 2)))
    store.add(4, values=np.ones((1, 4, 2)))
    (store.folder / "000000004-000000008.npz").unlink()
    store.close()
    assert RowStore(tmp_path / "out.tif", {}, resume=True).done == 4
    store.remove()
    assert not list(tmp_path.iterdir())


def broken_off(source, target, error, rows_done=4):
    with kept_rows([source], target, {}, resume=True, height=8) as rows:
        if rows_done:
            rows.add(rows_done, values=np.ones((1, rows_done, 2)))
        raise error


def test_rows_of_a_run_stay_until_it_ends(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    source.write_bytes(b"raster")
    with pytest.raises(OSError, match="full"):
        broken_off(source, target, OSError("full"), rows_done=0)
    assert list(tmp_path.iterdir()) == [source]
    with pytest.raises(KeyboardInterrupt, match="interrupted at 50 %"):
        broken_off(source, target, KeyboardInterrupt())
    with kept_rows([source], target, {}, resume=True, height=8) as rows:
        assert rows.done == 4
    assert list(tmp_path.iterdir()) == [source]


def test_rows_of_another_state_of_the_source_are_dropped(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    source.write_bytes(b"raster")
    with pytest.raises(OSError, match="full"):
        broken_off(source, target, OSError("full"))
    source.write_bytes(b"another raster")
    with kept_rows([source], target, {}, resume=True, height=8) as rows:
        assert rows.done == 0


def test_rows_that_hold_nothing_cost_no_disk(tmp_path):
    store = RowStore(tmp_path / "out.tif", {}, resume=True)
    store.add(4)
    store.add(2, values=np.ones((1, 2, 3)))
    store.add(5)
    held = sum(path.stat().st_size for path in store.folder.glob("[0-9]*.none"))
    assert (store.done, held) == (11, 0)
    whole = np.concatenate(
        list(store.read("values", 4, lambda rows: np.zeros((1, rows, 3)))), axis=1
    )
    assert whole[0, :, 0].tolist() == [0] * 4 + [1] * 2 + [0] * 5


def test_a_second_run_with_the_same_output_is_refused(tmp_path):
    first = RowStore(tmp_path / "out.tif", {}, resume=True)
    with pytest.raises(InputError, match="another run is writing it"):
        RowStore(tmp_path / "out.tif", {}, resume=True)
    first.remove()
    RowStore(tmp_path / "out.tif", {}, resume=True).remove()
    assert not list(tmp_path.iterdir())


def test_a_name_of_254_bytes_has_its_rows(tmp_path):
    RowStore(tmp_path / ("a" * 250 + ".tif"), {}, resume=True).remove()

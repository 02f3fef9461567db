# SPDX-License-Identifier: Apache-2.0
"""Tables that come in pieces are the same file as one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fieldfare.netsec.data.flow_files import ROW_GROUP, open_table


@pytest.mark.parametrize("sizes", [[], [1], [5, 3, 3, 1, 40, 2] * 9, [1024] * 130, [70_000, 1, 1]])
def test_pieces_stay_in_order(sizes: list[int], tmp_path: Path) -> None:
    whole = pa.table({"number": pa.array(np.arange(sum(sizes))), "text": ["a"] * sum(sizes)})
    path = tmp_path / "flows.parquet"
    with open_table(path, whole.schema) as writer:
        at = 0
        for size in sizes:
            writer.write(whole.slice(at, size))
            at += size
    assert parquet.read_table(path).equals(whole)
    about = parquet.ParquetFile(path).metadata
    rows = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    assert all(count <= ROW_GROUP for count in rows)
    assert len(rows) <= 2 * (1 + sum(sizes) // ROW_GROUP)

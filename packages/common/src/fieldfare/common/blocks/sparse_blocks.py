# SPDX-License-Identifier: Apache-2.0
"""A matrix in blocks of ROWS rows that share their columns (block-compressed sparse rows)."""

from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 4


class Blocks(NamedTuple):
    """The columns of a block in which any of its rows is not zero.

    Attributes:
        starts: (blocks + 1,), int64: block b has the entries starts[b] to starts[b + 1], at least
            one (a zero where all are).
        columns: (entries,), int32, column of each.
        values: (entries, ROWS), the rows beyond the last zero.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor


def pack(matrix: Tensor) -> Blocks:
    """(O, C) in blocks."""
    rows, width = matrix.shape
    blocks = -(-rows // ROWS)
    padded = matrix.new_zeros(blocks * ROWS, width)
    padded[:rows] = matrix
    padded = padded.view(blocks, ROWS, width)
    kept = (padded != 0).any(dim=1)
    kept[:, 0] |= ~kept.any(dim=1)
    block, column = kept.nonzero(as_tuple=True)
    starts = torch.zeros(blocks + 1, dtype=torch.int64)
    starts[1:] = kept.sum(dim=1).cumsum(dim=0)
    return Blocks(starts, column.to(torch.int32), padded[block, :, column].contiguous())


def unpack(blocks: Blocks, rows: int, width: int) -> Tensor:
    """(rows, width), what `pack` was given."""
    starts, columns, values = blocks
    # with the size given, so that the shape does not depend on values and can be exported
    block = torch.repeat_interleave(starts.diff(), output_size=columns.shape[0])
    matrix = values.new_zeros(starts.shape[0] - 1, ROWS, width)
    matrix[block, :, columns.long()] = values
    return matrix.flatten(0, 1)[:rows]

# SPDX-License-Identifier: Apache-2.0
"""A sparse matrix times a dense one as a compiled loop for the CPU; float32, needs numba.

The matrix (O, C) is kept in blocks of ROWS rows that share their columns, so that each value read
of the dense matrix (C, P) is used ROWS times. TILE columns are done at once: their ROWS x TILE
results stay in vector registers while the loop walks the block's columns, and are written once.
numba keeps no array in registers, so this innermost loop is written in LLVM's own instructions.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from .sparse_blocks import ROWS

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
VECTORS = 2
TILE = LANES * VECTORS
"""Columns done at once; ROWS * VECTORS sums in registers hide the latency of a multiply-add."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _define(  # type: ignore[no-untyped-def]
    typing_context, x, x_pitch, index, values, bias, first, last, out, out_pitch
):
    """out[r, :TILE] = bias[r] + sum over k of values[k, r] * x[index[k], :TILE], r < ROWS.

    x, index, values, bias and out are addresses, pitches count floats, first < last. A pass of the
    loop has ROWS * VECTORS multiply-adds on VECTORS + ROWS loads.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_pitch, index, values, bias, first, last, out, out_pitch = arguments
        x, values, bias, out = (
            builder.inttoptr(address, _FLOAT.as_pointer()) for address in (x, values, bias, out)
        )
        index = builder.inttoptr(index, ir.IntType(32).as_pointer())

        def count(n: int) -> Any:
            return ir.Constant(_INT, n)

        def spread(address: Any) -> Any:
            none = ir.Constant(_VECTOR, ir.Undefined)
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            one = builder.insert_element(
                none, builder.load(address), ir.Constant(ir.IntType(32), 0)
            )
            return builder.shuffle_vector(one, none, lanes)

        def vector(address: Any, number: int) -> Any:
            moved = builder.gep(address, [count(number * LANES)])
            return builder.bitcast(moved, _VECTOR.as_pointer())

        starts = [spread(builder.gep(bias, [count(r)])) for r in range(ROWS)]
        before = builder.block
        loop = builder.append_basic_block("columns")
        after = builder.append_basic_block("write")
        builder.branch(loop)

        builder.position_at_end(loop)
        k = builder.phi(_INT)
        sums = [[builder.phi(_VECTOR) for _ in range(VECTORS)] for _ in range(ROWS)]
        column = builder.sext(builder.load(builder.gep(index, [k])), _INT)
        source = builder.gep(x, [builder.mul(column, x_pitch)])
        reads = [builder.load(vector(source, number)) for number in range(VECTORS)]
        for read in reads:
            read.align = 4
        next_k = builder.add(k, count(1))
        k.add_incoming(first, before)
        k.add_incoming(next_k, loop)
        results = []
        for r in range(ROWS):
            place = builder.add(builder.mul(k, count(ROWS)), count(r))
            weight = spread(builder.gep(values, [place]))
            for total, read in zip(sums[r], reads, strict=True):
                product = builder.fmul(weight, read, flags=("contract",))
                result = builder.fadd(product, total, flags=("contract",))
                total.add_incoming(starts[r], before)
                total.add_incoming(result, loop)
                results.append(result)
        builder.cbranch(builder.icmp_signed("<", next_k, last), loop, after)

        builder.position_at_end(after)
        for r in range(ROWS):
            row = builder.gep(out, [builder.mul(out_pitch, count(r))])
            for number in range(VECTORS):
                write = builder.store(results[r * VECTORS + number], vector(row, number))
                write.align = 4
        return context.get_dummy_value()

    address, size = types.uintp, types.intp
    signature = types.void(address, size, address, address, address, size, size, address, size)
    return signature, generate


_multiply: Any = intrinsic(_define)


@njit(cache=True, nogil=True)
def _tiles(x, starts, index, values, bias, out, packed, first, last):  # type: ignore[no-untyped-def]
    """Fill tiles first to last of out, counted over images and then columns.

    Args:
        x: (B, C, P).
        starts: (blocks + 1,), int64; none is empty.
        index: (starts[-1],), int32, channel of each entry.
        values: (starts[-1], ROWS).
        bias: (blocks * ROWS,).
        out: (B, O, P).
        packed: copy the columns of a tile together first.
    """
    channels, columns = x.shape[1:]
    outputs = out.shape[1]
    tiles = (columns + TILE - 1) // TILE
    tile = np.zeros((channels, TILE), np.float32)
    rest = np.empty((ROWS, TILE), np.float32)
    for number in range(first, last):
        image = number // tiles
        start = (number - image * tiles) * TILE
        width = min(TILE, columns - start)
        source, pitch = x[image].ctypes.data + np.uintp(4 * start), columns
        if width < TILE:
            for c in range(channels):
                for p in range(width):
                    tile[c, p] = x[image, c, start + p]
        elif packed:
            for c in range(channels):
                for p in range(TILE):
                    tile[c, p] = x[image, c, start + p]
        if width < TILE or packed:
            source, pitch = tile.ctypes.data, TILE
        target = out[image].ctypes.data + np.uintp(4 * start)
        for block in range(len(starts) - 1):
            rows = min(ROWS, outputs - block * ROWS)
            whole = rows == ROWS and width == TILE
            _multiply(
                source,
                pitch,
                index.ctypes.data,
                values.ctypes.data,
                bias.ctypes.data + np.uintp(4 * ROWS * block),
                starts[block],
                starts[block + 1],
                target + np.uintp(4 * ROWS * block * columns) if whole else rest.ctypes.data,
                columns if whole else TILE,
            )
            if not whole:
                for r in range(rows):
                    for p in range(width):
                        out[image, block * ROWS + r, start + p] = rest[r, p]


def multiply(
    x: np.ndarray,
    starts: np.ndarray,
    index: np.ndarray,
    values: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
    *,
    packed: bool,
    threads: int,
) -> None:
    """Fill out; see `_tiles`. The same result whatever the threads."""
    tiles = x.shape[0] * -(-x.shape[2] // TILE)
    threads = min(threads, tiles)
    arrays = (x, starts, index, values, bias, out, packed)
    if threads < 2:
        _tiles(*arrays, 0, tiles)
        return
    bounds = [tiles * part // threads for part in range(threads + 1)]
    parts = [_pool(threads).submit(_tiles, *arrays, *pair) for pair in pairwise(bounds)]
    for part in parts:
        part.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)

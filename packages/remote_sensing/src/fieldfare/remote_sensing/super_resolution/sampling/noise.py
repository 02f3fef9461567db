# SPDX-License-Identifier: Apache-2.0
"""Gaussian noise as a function of seed and global pixel, so that tiles agree where they overlap."""

import math

import numpy as np

BLOCK = 64


def noise_field(
    seed: int, stream: int, channels: int, rows: tuple[int, int], columns: tuple[int, int]
) -> np.ndarray:
    """Standard normal noise of a window of an endless image.

    The plane is cut into blocks of 64 x 64 pixels; each is drawn from a Philox counter generator
    (Salmon et al. 2011, doi 10.1145/2063384.2063405) keyed by the seed and started at a counter
    made of block row, block column and stream. The values of a pixel thus depend on nothing else.

    Args:
        seed: 0 to 2^64 - 1.
        stream: which of several independent fields (0: start of sampling; t: the step at t).
        rows, columns: half-open ranges of global pixels; may be negative.

    Returns:
        (channels, height, width) float32.

    Raises:
        ValueError: seed or stream is outside its range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie between 0 and 2^64 - 1, got {seed}")
    if not 0 <= stream < 2**64:
        raise ValueError(f"stream must lie between 0 and 2^64 - 1, got {stream}")
    (top, bottom), (left, right) = rows, columns
    field = np.empty((channels, bottom - top, right - left), np.float32)
    for block_row in range(top // BLOCK, -(-bottom // BLOCK)):
        for block_column in range(left // BLOCK, -(-right // BLOCK)):
            block = _block(seed, stream, channels, block_row, block_column)
            y, x = block_row * BLOCK, block_column * BLOCK
            y0, y1 = max(y, top), min(y + BLOCK, bottom)
            x0, x1 = max(x, left), min(x + BLOCK, right)
            field[:, y0 - top : y1 - top, x0 - left : x1 - left] = block[
                :, y0 - y : y1 - y, x0 - x : x1 - x
            ]
    return field


def _block(seed: int, stream: int, channels: int, row: int, column: int) -> np.ndarray:
    """One block by the Box-Muller transform of raw Philox words (stable across NumPy versions)."""
    mask = 2**64 - 1
    counter = np.array([0, row & mask, column & mask, stream], dtype=np.uint64)
    words = np.random.Philox(counter=counter, key=seed).random_raw(channels * BLOCK * BLOCK)
    radius_bits, angle_bits = words >> np.uint64(32), words & np.uint64(0xFFFFFFFF)
    uniform = (radius_bits.astype(np.float64) + 0.5) * 2.0**-32
    angle = angle_bits.astype(np.float64) * (2 * math.pi * 2.0**-32)
    normal = np.sqrt(-2 * np.log(uniform)) * np.cos(angle)
    block: np.ndarray = normal.astype(np.float32).reshape(channels, BLOCK, BLOCK)
    return block

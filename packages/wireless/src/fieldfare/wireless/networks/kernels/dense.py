# SPDX-License-Identifier: Apache-2.0
"""Linear layers for eight channels side by side, of one user or of two that share the weights."""

from .compiled import part
from .vectors import larger, load, nearest, pick, smaller, store

GRID = 4
"""Numbers of a rounded input: steps in one, its step, and the least and most steps."""


@part
def linear(numbers, at, stride, bias, inputs, outputs, x, out):  # type: ignore[no-untyped-def]
    """out (outputs) = weight (outputs, inputs) x + bias.

    Args:
        numbers: weight (o, i) is at + o stride + i of them, the first bias at `bias`.
    """
    blocks = outputs - outputs % 4
    for o in range(0, blocks, 4):  # sums that do not wait for each other
        t, u = pick(numbers, bias + o), pick(numbers, bias + o + 1)
        v, w = pick(numbers, bias + o + 2), pick(numbers, bias + o + 3)
        row = at + o * stride
        for i in range(inputs):
            y = load(x, i)
            t = t + pick(numbers, row + i) * y
            u = u + pick(numbers, row + stride + i) * y
            v = v + pick(numbers, row + 2 * stride + i) * y
            w = w + pick(numbers, row + 3 * stride + i) * y
        store(out, o, t)
        store(out, o + 1, u)
        store(out, o + 2, v)
        store(out, o + 3, w)
    for o in range(blocks, outputs):
        total = pick(numbers, bias + o)
        for i in range(inputs):
            total = total + pick(numbers, at + o * stride + i) * load(x, i)
        store(out, o, total)


@part
def linear_of_users(numbers, at, stride, bias, sizes, users, x, x0, x_step, out, out0, step, more):  # type: ignore[no-untyped-def]
    """The same for every user, or + what is in the outputs already if `more`.

    Two users share the weights that are read.

    Args:
        sizes: inputs and outputs.
        x0, x_step, out0, step: user k's input is at x0 + k x_step, its output at out0 + k step.
    """
    inputs, outputs = sizes
    for k in range(0, users, 2):
        j = min(k + 1, users - 1)
        x_k, x_j, to_k, to_j = x0 + k * x_step, x0 + j * x_step, out0 + k * step, out0 + j * step
        for o in range(0, outputs, 2):
            p = min(o + 1, outputs - 1)
            t = load(out, to_k + o) if more else pick(numbers, bias + o)
            u = load(out, to_k + p) if more else pick(numbers, bias + p)
            v = load(out, to_j + o) if more else pick(numbers, bias + o)
            w = load(out, to_j + p) if more else pick(numbers, bias + p)
            row, next_row = at + o * stride, at + p * stride
            for i in range(inputs):
                y, z = load(x, x_k + i), load(x, x_j + i)
                a, b = pick(numbers, row + i), pick(numbers, next_row + i)
                t = t + a * y
                u = u + b * y
                v = v + a * z
                w = w + b * z
            store(out, to_k + o, t)
            store(out, to_k + p, u)
            store(out, to_j + o, v)
            store(out, to_j + p, w)


@part
def on_grid(grids, at, count, rows, x, step):  # type: ignore[no-untyped-def]
    """Round inputs, `count` numbers each `step` after the last, to whole steps, where asked for."""
    if len(grids) == 0:
        return
    each, width = pick(grids, at), pick(grids, at + 1)
    least, most = pick(grids, at + 2), pick(grids, at + 3)
    for row in range(rows):
        for i in range(row * step, row * step + count):
            steps = smaller(larger(load(x, i) * each, least), most)
            store(x, i, nearest(steps) * width)

# SPDX-License-Identifier: Apache-2.0
"""Greedy user selection, the arithmetic of `signals.selection`, eight channels at a time."""

from .cell import gram, read_channels, read_numbers, room, write_numbers
from .compiled import compiled, part
from .vectors import LANES, larger, load, log, spread, store, where_positive


@part
def sweep_chosen(chosen, users, sr, si, vr, vi):  # type: ignore[no-untyped-def]
    """As in `cell.invert`, for chosen users alone, each eight its own."""
    zero = spread(0.0)
    for p in range(users):
        picked = load(chosen, p)
        inverse = where_positive(picked, 1.0 / load(sr, p * users + p), zero)
        for k in range(p):
            store(vr, k, load(sr, p * users + k))
            store(vi, k, 0.0 - load(si, p * users + k))
        for k in range(p + 1, users):
            store(vr, k, load(sr, k * users + p))
            store(vi, k, load(si, k * users + p))
        for k in range(users):
            row = k * users
            if k == p:
                for j in range(p):
                    re, im = load(vr, j), load(vi, j)
                    store(sr, row + j, where_positive(picked, re * inverse, re))
                    store(si, row + j, 0.0 - where_positive(picked, im * inverse, im))
                store(sr, row + p, where_positive(picked, 0.0 - inverse, load(sr, row + p)))
                continue
            a, b = load(vr, k) * inverse, load(vi, k) * inverse
            for j in range(k + 1):
                if j != p:
                    x, y = load(vr, j), load(vi, j)
                    store(sr, row + j, load(sr, row + j) - a * x - b * y)
                    store(si, row + j, load(si, row + j) - b * x + a * y)
            if k > p:
                store(sr, row + p, where_positive(picked, a, load(vr, k)))
                store(si, row + p, where_positive(picked, b, load(vi, k)))


@part
def choose(ar, ai, users, weights, sr, si, vr, vi, chosen):  # type: ignore[no-untyped-def]
    """Users that greedy selection serves, 1 or 0 in `chosen`.

    With a users of equal power, M = A / a + I is swept for those chosen: the diagonal then holds
    their errors (negative) and what one more user would find, columns what it adds to the errors.
    """
    square = users * users
    zero, one, never = spread(0.0), spread(1.0), spread(-1e300)
    ended = room(1)
    value, running = zero, one
    for k in range(users):
        store(chosen, k, zero)
    for number in range(users):
        each = 1.0 / (number + 1.0)
        for entry in range(square):
            store(sr, entry, load(ar, entry) * each)
            store(si, entry, load(ai, entry) * each)
        for k in range(users):
            store(sr, k * users + k, load(sr, k * users + k) + 1.0)
        if number:
            sweep_chosen(chosen, users, sr, si, vr, vi)
        best, user = never, spread(-1.0)
        for c in range(users):
            pivot = larger(load(sr, c * users + c), one)
            rate, inverse = load(weights, c) * log(pivot), 1.0 / pivot
            for k in range(users):
                if k != c:
                    at = max(k, c) * users + min(k, c)
                    power = load(sr, at) * load(sr, at) + load(si, at) * load(si, at)
                    error = larger(power * inverse - load(sr, k * users + k), spread(1e-300))
                    error = where_positive(load(chosen, k), error, one)
                    rate = rate - load(weights, k) * log(error)
            free = where_positive(load(weights, c), 1.0 - load(chosen, c), zero)
            rate = where_positive(free, rate, never)
            user = where_positive(rate - best, spread(float(c)), user)
            best = larger(rate, best)
        more = where_positive(running, best - value, zero)
        running = where_positive(more, one, zero)
        value = where_positive(more, best, value)
        for k in range(users):
            hit = where_positive(larger(user - k, k - user), zero, one)
            mine = load(chosen, k)
            store(chosen, k, where_positive(more, larger(mine, hit), mine))
        store(ended, 0, more)
        if not ended.max() > 0:
            break


@compiled
def greedy(H, users, antennas, snr, weights, begin, end, served):  # type: ignore[no-untyped-def]
    """Users that greedy selection serves, of channels begin to end.

    Args:
        H: (B, K N, 2). snr: (B, 1). weights: (B, K). served: (B, K), 1 or 0, filled.
    """
    count = len(H)
    size, square = users * antennas, users * users
    hr, hi = room(size), room(size)
    ar, ai, sr, si = room(square), room(square), room(square), room(square)
    vr, vi, given, chosen, scale = room(users), room(users), room(users), room(users), room(1)
    for first in range(begin, end, LANES):
        read_channels(H, first, count, size, hr, hi)
        read_numbers(snr, first, count, 1, scale)
        read_numbers(weights, first, count, users, given)
        gram(hr, hi, users, antennas, scale, ar, ai)
        choose(ar, ai, users, given, sr, si, vr, vi, chosen)
        write_numbers(chosen, first, count, users, served)

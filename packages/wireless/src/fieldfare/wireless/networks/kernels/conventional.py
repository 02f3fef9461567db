# SPDX-License-Identifier: Apache-2.0
"""Loops over channels: precoders from shares and side powers, WMMSE, and rates."""

import numpy as np

from .cell import (
    equal_shares,
    gram,
    invert,
    multiply,
    observe,
    precoders,
    read_channels,
    read_numbers,
    respond,
    room,
    roots,
    weighted_rate,
    wmmse_step,
    write_precoders,
)
from .compiled import compiled
from .vectors import LANES, load, log, spread, store, where_positive

GROUP, ENTRIES = 64, 2**16
"""Eights of channels whose Gram matrices are kept at a time, at most; eights of their entries."""


@compiled
def finish(H, users, antennas, snr, power, share, q, even, begin, end, W):  # type: ignore[no-untyped-def]
    """Precoders of channels begin to end (begin a multiple of eight).

    Args:
        H: (B, K N, 2). snr, power: (B, 1). share, q: (B, K), uplink shares and side powers.
        even: whether all columns of q > 0 get the same power; else one factor for all.
        W: (B, N K, 2), filled.
    """
    count = len(H)
    size, square = users * antennas, users * users
    hr, hi, wr, wi = room(size), room(size), room(size), room(size)
    ar, ai, sr, si = room(square), room(square), room(square), room(square)
    own, columns, side = room(users), room(users), room(users)
    vr, vi = room(users), room(users)
    scale, limit = room(1), room(1)
    equal = spread(1.0 if even else 0.0)
    for first in range(begin, end, LANES):
        read_channels(H, first, count, users * antennas, hr, hi)
        read_numbers(snr, first, count, 1, scale)
        read_numbers(power, first, count, 1, limit)
        read_numbers(share, first, count, users, own)
        read_numbers(q, first, count, users, columns)
        gram(hr, hi, users, antennas, scale, ar, ai)
        roots(own, users, side)
        invert(ar, ai, side, users, sr, si, vr, vi)
        precoders(hr, hi, users, antennas, side, columns, sr, si, limit, equal, wr, wi, ar, ai)
        write_precoders(wr, wi, first, count, antennas * users, W)


@compiled
def wmmse(  # type: ignore[no-untyped-def]
    H, users, antennas, snr, weights, tolerance, most, begin, end, share, q, iterations, converged
):
    """Shares and side powers of WMMSE from RZF, for channels begin to end.

    A channel that ends gives its place to the next, so that no register waits for the slowest.

    Args:
        H: (B, K N, 2). snr: (B, 1). weights: (B, K).
        tolerance: relative change of the weighted sum rate that ends it; most: iterations.
        share, q: (B, K); iterations: (B,) int64; converged: (B,) bool; all filled.
    """
    count = len(H)
    size, square, line = users * antennas, users * users, users
    hr, hi = room(size), room(size)
    group = min(GROUP, (end - begin + LANES - 1) // LANES, max(8, ENTRIES // square))
    kept_r, kept_i = room(group * square), room(group * square)
    kept_w, kept_s = room(group * users), room(group * users)
    ar, ai, sr, si = room(square), room(square), room(square), room(square)
    vr, vi, wanted, length = room(line), room(line), room(line), room(line)
    own, columns, signal, leak = room(line), room(line), room(line), room(line)
    given, side, scale = room(line), room(line), room(1)
    fresh, before, spent = room(1), room(1), np.empty(LANES, np.int64)
    rate, channels = room(1), np.empty(LANES, np.int64)
    for start in range(begin, end, group * LANES):
        stop = min(end, start + group * LANES)
        for first in range(start, stop, LANES):
            block = (first - start) // LANES
            read_channels(H, first, count, users * antennas, hr, hi)
            read_numbers(snr, first, count, 1, scale)
            matrix = slice(block * square * LANES, (block + 1) * square * LANES)
            vector = slice(block * line * LANES, (block + 1) * line * LANES)
            read_numbers(weights, first, count, users, kept_w[vector])
            gram(hr, hi, users, antennas, scale, kept_r[matrix], kept_i[matrix])
            equal_shares(kept_r[matrix], kept_w[vector], users, kept_s[vector])
        following = start
        running = 0
        for lane in range(LANES):
            channels[lane] = -1
            for k in range(users):  # an empty place holds users without channel
                given[k * LANES + lane] = 0.0
                own[k * LANES + lane] = 1.0
                columns[k * LANES + lane] = 0.0
        refill = True
        while refill or running:
            if refill:
                refill = False
                for lane in range(LANES):
                    if channels[lane] >= 0 or following >= stop:
                        continue
                    channel = following
                    following += 1
                    running += 1
                    channels[lane] = channel
                    fresh[lane], spent[lane] = 1.0, 0
                    at = channel - start
                    place = at // LANES * users
                    source = at % LANES
                    for k in range(users):
                        own[k * LANES + lane] = kept_s[(place + k) * LANES + source]
                        given[k * LANES + lane] = kept_w[(place + k) * LANES + source]
                    place *= users
                    for k in range(users):
                        for j in range(k + 1):
                            entry = k * users + j
                            ar[entry * LANES + lane] = kept_r[(place + entry) * LANES + source]
                            ai[entry * LANES + lane] = kept_i[(place + entry) * LANES + source]
            roots(own, users, side)
            invert(ar, ai, side, users, sr, si, vr, vi)
            observe(ar, ai, own, side, sr, si, users, wanted, length)
            for k in range(users):
                even = where_positive(load(given, k), 1.0 / load(length, k), spread(0.0))
                store(columns, k, where_positive(load(fresh, 0), even, load(columns, k)))
            respond(own, sr, si, columns, users, wanted, length, signal, leak)
            store(rate, 0, weighted_rate(signal, leak, given, users))
            for lane in range(LANES):
                channel = channels[lane]
                if channel < 0:
                    continue
                if fresh[lane] > 0:
                    fresh[lane] = 0.0
                else:
                    spent[lane] += 1
                    done = abs(rate[lane] - before[lane]) <= tolerance * abs(rate[lane])
                    if done or spent[lane] >= most:
                        for k in range(users):
                            share[channel, k] = own[k * LANES + lane]
                            q[channel, k] = columns[k * LANES + lane]
                        iterations[channel] = spent[lane]
                        converged[channel] = done
                        channels[lane] = -1
                        running -= 1
                        refill = refill or following < stop
                before[lane] = rate[lane]
            wmmse_step(signal, leak, given, users, own, columns)


@compiled
def rates(H, W, users, antennas, noise, begin, end, out):  # type: ignore[no-untyped-def]
    """Rates in bits/s/Hz of channels begin to end.

    Args:
        H: (B, K N, 2). W: (B, N K, 2). noise: (B, 1). out: (B, K), filled.
    """
    count = len(H)
    size = users * antennas
    hr, hi, wr, wi = room(size), room(size), room(size), room(size)
    square = users * users
    zr, zi = room(square), room(square)
    level, rate = room(1), room(users)
    for first in range(begin, end, LANES):
        read_channels(H, first, count, users * antennas, hr, hi)
        read_channels(W, first, count, users * antennas, wr, wi)
        read_numbers(noise, first, count, 1, level)
        multiply(
            hr, hi, users, (antennas, 1), wr, wi, users, (1, users), antennas, 1.0, False, zr, zi
        )
        for k in range(users):
            unwanted = load(level, 0)
            for j in range(users):
                if j != k:
                    re, im = load(zr, k * users + j), load(zi, k * users + j)
                    unwanted = unwanted + re * re + im * im
            re, im = load(zr, k * users + k), load(zi, k * users + k)
            ratio = (re * re + im * im) / unwanted
            # log(1 + x) of small x loses digits; x - x^2 / 2 does not.
            exact = where_positive(1e-6 - ratio, ratio - 0.5 * ratio * ratio, log(1.0 + ratio))
            store(rate, k, exact * 1.4426950408889634)
        for lane in range(min(LANES, count - first)):
            for k in range(users):
                out[first + lane, k] = rate[k * LANES + lane]

# SPDX-License-Identifier: Apache-2.0
"""The trained network as a loop over eight channels at a time.

The arithmetic is that of `networks.precoder`, all of it in double precision.
"""

import numpy as np

from .cell import (
    LEAST_SHARE,
    equal_columns,
    equal_shares,
    gram,
    invert,
    observe,
    precoders,
    read_channels,
    read_numbers,
    respond,
    room,
    roots,
    weighted_rate,
    wmmse_step,
    write_numbers,
    write_precoders,
)
from .compiled import compiled, part
from .greedy import choose
from .vectors import LANES, exp, larger, load, log, pick, smaller, spread, store, where_positive

FEATURES = 9
LEAST = -40.0
"""Of the logarithms of shares and side powers."""

MOST_FEATURE = 8.0
GAIN = 1 + 1e-5
"""Times RZF's rate: what the network has to reach, so that rounding cannot put it below RZF."""


@part
def linear(numbers, at, stride, bias, inputs, outputs, x, x0, out, out0, more):  # type: ignore[no-untyped-def]
    """out (outputs) = weight (outputs, inputs) x + bias, or + what is there already if `more`.

    Args:
        numbers: weight (o, i) is at + o stride + i of them, the first bias at `bias`.
    """
    blocks = outputs - outputs % 4
    for o in range(0, blocks, 4):  # sums that do not wait for each other
        a, b, c, d = out0 + o, out0 + o + 1, out0 + o + 2, out0 + o + 3
        t = load(out, a) if more else pick(numbers, bias + o)
        u = load(out, b) if more else pick(numbers, bias + o + 1)
        v = load(out, c) if more else pick(numbers, bias + o + 2)
        w = load(out, d) if more else pick(numbers, bias + o + 3)
        row = at + o * stride
        for i in range(inputs):
            y = load(x, x0 + i)
            t = t + pick(numbers, row + i) * y
            u = u + pick(numbers, row + stride + i) * y
            v = v + pick(numbers, row + 2 * stride + i) * y
            w = w + pick(numbers, row + 3 * stride + i) * y
        store(out, a, t)
        store(out, b, u)
        store(out, c, v)
        store(out, d, w)
    for o in range(blocks, outputs):
        total = load(out, out0 + o) if more else pick(numbers, bias + o)
        for i in range(inputs):
            total = total + pick(numbers, at + o * stride + i) * load(x, x0 + i)
        store(out, out0 + o, total)


@part
def features(  # type: ignore[no-untyped-def]
    users, weights, share, logs, q, signal, leak, sr, length, nexts, x, width
):
    """Nine numbers of every user into x (K, 9 + width), and the logarithms of a WMMSE step.

    Args:
        logs: (2 K), of the shares and of the side powers so far.
        nexts: (2 K), filled: of those after the step, each over its sum.
    """
    count, sum_share, sum_side, spent = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
    sum_q = spread(0.0)
    for k in range(users):
        weight = load(weights, k)
        unwanted = 1.0 + load(leak, k)
        everything = unwanted + load(signal, k)
        gain = weight / unwanted
        b, side = gain * load(signal, k) / everything, gain * everything
        count = count + where_positive(weight, spread(1.0), spread(0.0))
        sum_share, sum_side = sum_share + b, sum_side + side
        sum_q = sum_q + load(q, k)
        spent = spent + load(q, k) * load(length, k)
        store(nexts, k, b)
        store(nexts, users + k, side)
    size = log(larger(count, spread(1.0)))
    scale, side_scale = (
        1.0 / larger(sum_share, spread(1e-290)),
        1.0 / larger(sum_side, spread(1e-290)),
    )
    scale_q = log(larger(sum_q, spread(1e-290)))
    each = larger(count, spread(1.0)) / larger(spent, spread(1e-290))
    tiny, low, high = spread(1e-300), spread(-MOST_FEATURE), spread(MOST_FEATURE)
    for k in range(users):
        new = larger(log(larger(load(nexts, k) * scale, tiny)), spread(LEAST))
        side = larger(log(larger(load(nexts, users + k) * side_scale, tiny)), spread(LEAST))
        store(nexts, k, new)
        store(nexts, users + k, side)
        at = k * (FEATURES + width)
        column = larger(load(q, k) * load(length, k) * each, spread(1e-6))
        store(x, at, new + size)
        store(x, at + 1, side + size)
        store(x, at + 2, new - load(logs, k))
        store(x, at + 3, side - (load(logs, users + k) - scale_q))
        store(x, at + 4, 0.5 * log(1.0 + load(signal, k)))
        store(x, at + 5, 0.5 * log(1.0 + load(leak, k)))
        store(x, at + 6, load(sr, k * users + k))
        store(x, at + 7, 0.5 * log(column))
        store(x, at + 8, 0.5 * size)
        for f in range(FEATURES):
            store(x, at + f, smaller(larger(load(x, at + f), low), high))
    return larger(count, spread(1.0))


@part
def layer(  # type: ignore[no-untyped-def]
    users, weights, count, first, width, numbers, offset, nexts, x, h, mixed, pooled, share, logs, q
):
    """Corrections of a WMMSE step: new shares and side powers, and the state behind x's features.

    Args:
        numbers: all weights of the network, those of this layer from `offset` on.
        first: whether there is no state yet.

    Returns:
        Where the next layer's weights begin.
    """
    inputs = FEATURES if first else FEATURES + width
    step = FEATURES + width
    bias = offset + width * inputs
    mix = bias + width
    mix_bias = mix + 3 * width * width
    head = mix_bias + width
    head_bias = head + 2 * width

    zero = spread(0.0)
    for f in range(2 * width):
        store(pooled, f, zero)
    for k in range(users):
        linear(numbers, offset, inputs, bias, inputs, width, x, k * step, h, k * width, False)
        served = load(weights, k)
        for f in range(width):
            state = where_positive(served, larger(load(h, k * width + f), zero), zero)
            store(h, k * width + f, state)
            store(pooled, f, load(pooled, f) + state)
            store(pooled, width + f, larger(load(pooled, width + f), state))
    inverse = 1.0 / count
    for f in range(width):
        store(pooled, f, load(pooled, f) * inverse)
    common = mixed
    wide = 3 * width
    linear(numbers, mix + width, wide, mix_bias, 2 * width, width, pooled, 0, common, 0, False)
    sum_share, sum_side = zero, zero
    for k in range(users):
        for f in range(width):
            store(common, width + f, load(common, f))
        linear(numbers, mix, wide, mix_bias, width, width, h, k * width, common, width, True)
        for f in range(width):
            store(x, k * step + FEATURES + f, larger(load(common, width + f), zero))
        place = k * step + FEATURES
        linear(numbers, head, width, head_bias, width, 2, x, place, common, 2 * width, False)
        store(logs, k, load(nexts, k) + load(common, 2 * width))
        store(logs, users + k, load(nexts, users + k) + load(common, 2 * width + 1))
        own, side = exp(load(logs, k)), exp(load(logs, users + k))
        served = load(weights, k)
        own, side = where_positive(served, own, zero), where_positive(served, side, zero)
        store(share, k, own)
        store(q, k, side)
        sum_share, sum_side = sum_share + own, sum_side + side
    none, lowest = spread(1e-290), spread(LEAST)
    sum_share, sum_side = larger(sum_share, none), larger(sum_side, none)
    log_share, log_side = log(sum_share), log(sum_side)
    scale, side_scale, least = 1.0 / sum_share, 1.0 / sum_side, spread(np.exp(LEAST))
    for k in range(users):
        store(logs, k, larger(load(logs, k) - log_share, lowest))
        store(logs, users + k, larger(load(logs, users + k) - log_side, lowest))
        served = load(weights, k)
        own, side = larger(load(share, k) * scale, least), larger(load(q, k) * side_scale, least)
        store(share, k, where_positive(served, own, spread(LEAST_SHARE)))
        store(q, k, where_positive(served, side, zero))
    return head_bias + 2


@part
def keep(better, users, share, q, best_share, best_q):  # type: ignore[no-untyped-def]
    """Take over shares and side powers where `better` is positive."""
    for k in range(users):
        store(best_share, k, where_positive(better, load(share, k), load(best_share, k)))
        store(best_q, k, where_positive(better, load(q, k), load(best_q, k)))


@part
def together(ar, ai, users, weights, chosen, places, few, cr, ci):  # type: ignore[no-untyped-def]
    """The chosen users side by side, so that those left out cost nothing.

    Args:
        places: (K), filled: which user stands at a place.
        few: (K), filled: weights of the users at their places, 0 of users not chosen.
        cr, ci: filled: A of as many users as any of the eight channels serves.

    Returns:
        How many, few, cr, ci.
    """
    many = 1
    for lane in range(LANES):
        count = 0
        for wanted in range(1, -1, -1):
            for k in range(users):
                if (chosen[k * LANES + lane] > 0) == (wanted == 1):
                    places[count * LANES + lane] = k
                    few[count * LANES + lane] = wanted * weights[k * LANES + lane]
                    count += 1
            if wanted:
                many = max(many, count)
    for lane in range(LANES):
        for k in range(many):
            row = int(places[k * LANES + lane])
            for j in range(k + 1):
                column = int(places[j * LANES + lane])
                low, high = max(row, column), min(row, column)
                at, to = (low * users + high) * LANES + lane, (k * many + j) * LANES + lane
                cr[to] = ar[at]
                ci[to] = ai[at] if row >= column else -ai[at]
    return many, few, cr, ci


@part
def put_back(better, users, many, places, share, q, best_share, best_q):  # type: ignore[no-untyped-def]
    """Take over where `better` is positive, every user at its own place; others get nothing."""
    mask = room(1)
    store(mask, 0, better)
    for lane in range(LANES):
        if not mask[lane] > 0:
            continue
        for k in range(users):
            best_share[k * LANES + lane] = LEAST_SHARE
            best_q[k * LANES + lane] = 0.0
        for k in range(many):
            user = int(places[k * LANES + lane])
            best_share[user * LANES + lane] = share[k * LANES + lane]
            best_q[user * LANES + lane] = q[k * LANES + lane]


@compiled
def network(  # type: ignore[no-untyped-def]
    H,
    users,
    antennas,
    snr,
    power,
    weights,
    numbers,
    width,
    layers,
    more,
    guard,
    select,
    begin,
    end,
    W,
    rate,
    safe,
):
    """Precoders of channels begin to end by the trained network.

    Args:
        H: (B, K N, 2). snr, power: (B, 1). weights: (B, K), 0 for users not to be served.
        numbers: the network's weights in the order of its layers; width, layers: of it.
        more: WMMSE steps behind the layers.
        guard: whether RZF, and earlier layers' precoders, are taken where they are better.
        select: whether it also starts from the users of greedy selection; the better is taken.
        W: (B, N K, 2). rate, safe: (B, 1), weighted sum rates of W and of RZF, the better one of
            the starts, in nats; equal where W is RZF. All filled.
    """
    count = len(H)
    size, square = users * antennas, users * users
    hr, hi, wr, wi = room(size), room(size), room(size), room(size)
    ar, ai, sr, si = room(square), room(square), room(square), room(square)
    vr, vi, wanted, length = room(users), room(users), room(users), room(users)
    share, q, side, signal, leak = room(users), room(users), room(users), room(users), room(users)
    best_share, best_q, safe_share, safe_q = room(users), room(users), room(users), room(users)
    given, chosen, few, places = room(users), room(users), room(users), room(users)
    share_2, q_2, safe_share_2, safe_q_2 = room(users), room(users), room(users), room(users)
    cr, ci = (room(square), room(square)) if select else (ar, ai)
    logs, nexts = room(2 * users), room(2 * users)
    x, h = room(users * (FEATURES + width)), room(users * width)
    mixed, pooled = room(2 * width + 2), room(2 * width)
    scale, limit, one = room(1), room(1), room(1)
    yes, no = spread(1.0), spread(0.0)
    last = layers + more
    for first in range(begin, end, LANES):
        read_channels(H, first, count, size, hr, hi)
        read_numbers(snr, first, count, 1, scale)
        read_numbers(power, first, count, 1, limit)
        read_numbers(weights, first, count, users, given)
        gram(hr, hi, users, antennas, scale, ar, ai)
        best = plain = spread(-1.0)
        stale = yes
        for start in range(2 if select else 1):
            many, now, gr, gi = users, given, ar, ai
            kept_share, kept_q, even_share, even_q = best_share, best_q, safe_share, safe_q
            if start:
                choose(ar, ai, users, given, sr, si, vr, vi, chosen)
                left_out, stale = no, yes  # selection used the room of the inverse
                for k in range(users):
                    left_out = larger(left_out, load(given, k) * (1.0 - load(chosen, k)))
                store(one, 0, left_out)
                if not one.max() > 0:
                    break
                many, now, gr, gi = together(ar, ai, users, given, chosen, places, few, cr, ci)
                kept_share, kept_q, even_share, even_q = share_2, q_2, safe_share_2, safe_q_2
            equal_shares(gr, now, many, share)
            reached = regular = spread(-1.0)
            offset = 0
            for step in range(last + 1):
                roots(share, many, side)
                invert(gr, gi, side, many, sr, si, vr, vi)
                observe(gr, gi, share, side, sr, si, many, wanted, length)
                if step == 0:
                    equal_columns(now, length, many, q)
                    for k in range(many):
                        store(logs, k, log(load(share, k)))
                        store(logs, many + k, log(larger(load(q, k), spread(1e-300))))
                        store(even_share, k, load(share, k))
                        store(even_q, k, where_positive(load(now, k), yes, no))
                respond(share, sr, si, q, many, wanted, length, signal, leak)
                value = weighted_rate(signal, leak, now, many)
                if step == 0:
                    regular = value
                better = value - reached if guard or step == last else no
                keep(better, many, share, q, kept_share, kept_q)
                reached = where_positive(better, value, reached)
                stale = where_positive(better, no, yes)
                if step < layers:
                    members = features(
                        many, now, share, logs, q, signal, leak, sr, length, nexts, x, width
                    )
                    offset = layer(
                        many,
                        now,
                        members,
                        step == 0,
                        width,
                        numbers,
                        offset,
                        nexts,
                        x,
                        h,
                        mixed,
                        pooled,
                        share,
                        logs,
                        q,
                    )
                elif step < last:
                    wmmse_step(signal, leak, now, many, share, q)
            if start:
                put_back(reached - best, users, many, places, share_2, q_2, best_share, best_q)
                put_back(
                    regular - plain, users, many, places, safe_share_2, safe_q_2, safe_share, safe_q
                )
                stale = yes
            best, plain = larger(reached, best), larger(regular, plain)
        even = plain * GAIN - best if guard else no
        keep(even, users, safe_share, safe_q, best_share, best_q)
        best = where_positive(even, plain, best)
        store(one, 0, where_positive(even, yes, stale))
        if one.max() > 0:  # the inverse at hand is not of everyone's best
            roots(best_share, users, side)
            invert(ar, ai, side, users, sr, si, vr, vi)
        precoders(hr, hi, users, antennas, side, best_q, sr, si, limit, even, wr, wi, ar, ai)
        write_precoders(wr, wi, first, count, size, W)
        store(one, 0, best)
        write_numbers(one, first, count, 1, rate)
        store(one, 0, plain)
        write_numbers(one, first, count, 1, safe)

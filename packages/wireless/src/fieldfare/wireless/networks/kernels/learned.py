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
from .dense import GRID, linear, linear_of_users, on_grid
from .greedy import choose
from .vectors import (
    LANES,
    exp,
    larger,
    load,
    log,
    smaller,
    spread,
    store,
    where_positive,
)

FEATURES = 9
LEAST = -40.0
"""Of the logarithms of shares and side powers."""

MOST_FEATURE = 8.0
GAIN = 1 + 1e-5
"""Times RZF's rate: what the network has to reach, so that rounding cannot put it below RZF."""


@part
def bounded(value):  # type: ignore[no-untyped-def]
    """A feature within its range."""
    return smaller(larger(value, spread(-MOST_FEATURE)), spread(MOST_FEATURE))


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
    tiny = spread(1e-300)
    for k in range(users):
        new = larger(log(larger(load(nexts, k) * scale, tiny)), spread(LEAST))
        side = larger(log(larger(load(nexts, users + k) * side_scale, tiny)), spread(LEAST))
        store(nexts, k, new)
        store(nexts, users + k, side)
        at = k * (FEATURES + width)
        column = larger(load(q, k) * load(length, k) * each, spread(1e-6))
        store(x, at, bounded(new + size))
        store(x, at + 1, bounded(side + size))
        store(x, at + 2, bounded(new - load(logs, k)))
        store(x, at + 3, bounded(side - (load(logs, users + k) - scale_q)))
        store(x, at + 4, bounded(0.5 * log(1.0 + load(signal, k))))
        store(x, at + 5, bounded(0.5 * log(1.0 + load(leak, k))))
        store(x, at + 6, load(sr, k * users + k))  # at most 1
        store(x, at + 7, bounded(0.5 * log(column)))
        store(x, at + 8, bounded(0.5 * size))
    return larger(count, spread(1.0))


@part
def layer(  # type: ignore[no-untyped-def]
    users,
    weights,
    count,
    number,
    width,
    numbers,
    grids,
    offset,
    nexts,
    x,
    h,
    mixed,
    pooled,
    found,
    share,
    logs,
    q,
):
    """Corrections of a WMMSE step: new shares and side powers, and the state behind x's features.

    Args:
        number: of the layer; before the first there is no state yet.
        numbers: all weights of the network, those of this layer from `offset` on.
        grids: what inputs are rounded to, `GRID` numbers each; none where they are not.

    Returns:
        Where the next layer's weights begin.
    """
    inputs = FEATURES + width if number else FEATURES
    grid = 3 * GRID * number
    step = FEATURES + width
    bias = offset + width * inputs
    mix = bias + width
    mix_bias = mix + 3 * width * width
    head = mix_bias + width
    head_bias = head + 2 * width

    zero = spread(0.0)
    on_grid(grids, grid, inputs, users, x, step)
    whole = inputs, width
    linear_of_users(numbers, offset, inputs, bias, whole, users, x, 0, step, h, 0, width, False)
    inverse = 1.0 / count
    for f in range(width):
        total, most = zero, zero
        for k in range(users):
            at = k * width + f
            state = where_positive(load(weights, k), larger(load(h, at), zero), zero)
            store(h, at, state)
            total, most = total + state, larger(most, state)
        store(pooled, f, total * inverse)
        store(pooled, width + f, most)
    on_grid(grids, grid + GRID, 2 * width, 1, pooled, 0)
    on_grid(grids, grid + GRID, width, users, h, width)
    wide, own = 3 * width, (width, width)
    linear(numbers, mix + width, wide, mix_bias, 2 * width, width, pooled, mixed)
    for k in range(users):
        for f in range(width):
            store(x, k * step + FEATURES + f, load(mixed, f))
    linear_of_users(numbers, mix, wide, 0, own, users, h, 0, width, x, FEATURES, step, True)
    for k in range(users):
        for f in range(width):
            state = larger(load(x, k * step + FEATURES + f), zero)
            store(x, k * step + FEATURES + f, state)
            store(h, k * width + f, state)
    on_grid(grids, grid + 2 * GRID, width, users, h, width)
    both = width, 2
    linear_of_users(numbers, head, width, head_bias, both, users, h, 0, width, found, 0, 2, False)
    sum_share, sum_side = zero, zero
    for k in range(users):
        store(logs, k, load(nexts, k) + load(found, 2 * k))
        store(logs, users + k, load(nexts, users + k) + load(found, 2 * k + 1))
        new, side = exp(load(logs, k)), exp(load(logs, users + k))
        served = load(weights, k)
        new, side = where_positive(served, new, zero), where_positive(served, side, zero)
        store(share, k, new)
        store(q, k, side)
        sum_share, sum_side = sum_share + new, sum_side + side
    none, lowest = spread(1e-290), spread(LEAST)
    sum_share, sum_side = larger(sum_share, none), larger(sum_side, none)
    log_share, log_side = log(sum_share), log(sum_side)
    scale, side_scale, least = 1.0 / sum_share, 1.0 / sum_side, spread(np.exp(LEAST))
    for k in range(users):
        store(logs, k, larger(load(logs, k) - log_share, lowest))
        store(logs, users + k, larger(load(logs, users + k) - log_side, lowest))
        served = load(weights, k)
        new, side = larger(load(share, k) * scale, least), larger(load(q, k) * side_scale, least)
        store(share, k, where_positive(served, new, spread(LEAST_SHARE)))
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
    grids,
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
        numbers: the network's weights in the order of its layers; grids: see `layer`.
        width, layers: of the network.
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
    mixed, pooled, found = room(width), room(2 * width), room(2 * users)
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
                        step,
                        width,
                        numbers,
                        grids,
                        offset,
                        nexts,
                        x,
                        h,
                        mixed,
                        pooled,
                        found,
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

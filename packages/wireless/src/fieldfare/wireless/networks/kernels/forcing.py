# SPDX-License-Identifier: Apache-2.0
"""Maximum ratio and zero forcing, equal powers or water-filling, eight channels at a time.

Zero forcing goes through the QR decomposition of H^H (Gram and Schmidt, each column twice), as
`signals.linear.zf`: its error grows with the condition of H, not with its square.
"""

from .cell import read_channels, read_numbers, room, write_precoders
from .compiled import compiled, part
from .vectors import LANES, load, root, spread, store, where_positive


@part
def reduce(hr, hi, users, antennas, weights, qr, qi, rr, ri, shortest):  # type: ignore[no-untyped-def]
    """H^H = Q R for the served users; Q is by columns, entry (n, k) at k N + n.

    Args:
        weights: K eights, positive for users to be served; the others get zeros.
        shortest: an eight, filled: the least diagonal entry of R over the length of its channel.
    """
    zero = spread(0.0)
    least = spread(1e300)
    for k in range(users):
        served = load(weights, k)
        before = zero
        for n in range(antennas):
            at = k * antennas + n
            a, b = load(hr, at), load(hi, at)
            before = before + a * a + b * b
            store(qr, at, where_positive(served, a, zero))
            store(qi, at, where_positive(served, 0.0 - b, zero))
        for j in range(k):
            store(rr, j * users + k, zero)
            store(ri, j * users + k, zero)
        for _ in range(2):
            for j in range(k):
                re, im = zero, zero
                for n in range(antennas):
                    a, b = load(qr, j * antennas + n), load(qi, j * antennas + n)
                    c, d = load(qr, k * antennas + n), load(qi, k * antennas + n)
                    re, im = re + a * c + b * d, im + a * d - b * c
                for n in range(antennas):
                    a, b = load(qr, j * antennas + n), load(qi, j * antennas + n)
                    at = k * antennas + n
                    store(qr, at, load(qr, at) - a * re + b * im)
                    store(qi, at, load(qi, at) - a * im - b * re)
                store(rr, j * users + k, load(rr, j * users + k) + re)
                store(ri, j * users + k, load(ri, j * users + k) + im)
        after = zero
        for n in range(antennas):
            a, b = load(qr, k * antennas + n), load(qi, k * antennas + n)
            after = after + a * a + b * b
        length = root(after)
        share = where_positive(served, length / root(before), least)
        least = where_positive(least - share, share, least)
        inverse = where_positive(after, 1.0 / length, zero)
        for n in range(antennas):
            at = k * antennas + n
            store(qr, at, load(qr, at) * inverse)
            store(qi, at, load(qi, at) * inverse)
        store(rr, k * users + k, inverse)  # what is needed of the diagonal
    store(shortest, 0, least)


@part
def solve(users, antennas, qr, qi, rr, ri):  # type: ignore[no-untyped-def]
    """Q R^-H in the place of Q: the columns of zero forcing."""
    for k in range(users - 1, -1, -1):
        for j in range(k + 1, users):
            re, im = load(rr, k * users + j), load(ri, k * users + j)
            for n in range(antennas):
                a, b = load(qr, j * antennas + n), load(qi, j * antennas + n)
                at = k * antennas + n
                store(qr, at, load(qr, at) - a * re - b * im)
                store(qi, at, load(qi, at) - b * re + a * im)
        inverse = load(rr, k * users + k)
        for n in range(antennas):
            at = k * antennas + n
            store(qr, at, load(qr, at) * inverse)
            store(qi, at, load(qi, at) * inverse)


@part
def fill(floors, weights, users, power, noise, columns):  # type: ignore[no-untyped-def]
    """Powers by water-filling over floors noise / gain, of each lane; others than served get none.

    As `signals.waterfilling`, by leaving out users above the level until none is.
    """
    for lane in range(LANES):
        for k in range(users):
            columns[k * LANES + lane] = 1.0 if weights[k * LANES + lane] > 0 else 0.0
        level, more = 0.0, True
        while more:
            more = False
            total, count = power[lane], 0
            for k in range(users):
                if columns[k * LANES + lane] > 0:
                    total += floors[k * LANES + lane] * noise[lane]
                    count += 1
            level = total / max(count, 1)
            for k in range(users):
                above = floors[k * LANES + lane] * noise[lane] >= level
                if columns[k * LANES + lane] > 0 and above and count > 1:
                    columns[k * LANES + lane] = 0.0
                    more = True
        for k in range(users):
            if columns[k * LANES + lane] > 0:
                columns[k * LANES + lane] = level - floors[k * LANES + lane] * noise[lane]


@part
def share_power(weights, users, power, columns):  # type: ignore[no-untyped-def]
    """Equal powers for the served users."""
    count = spread(0.0)
    for k in range(users):
        count = count + where_positive(load(weights, k), spread(1.0), spread(0.0))
    each = where_positive(count, load(power, 0) / count, spread(0.0))
    for k in range(users):
        store(columns, k, where_positive(load(weights, k), each, spread(0.0)))


@compiled
def forcing(  # type: ignore[no-untyped-def]
    H, users, antennas, noise, power, weights, forced, filled, begin, end, W, shortest
):
    """Precoders of channels begin to end (begin a multiple of eight).

    Args:
        H: (B, K N, 2). noise, power: (B, 1). weights: (B, K), 0 for users not to be served.
        forced: zero forcing, else maximum ratio; filled: powers by water-filling, else equal.
        W: (B, N K, 2), filled.
        shortest: (B, 1), filled where `forced`: what of a user's channel the users before it leave,
            of the user with the least.
    """
    count = len(H)
    size, square = users * antennas, users * users
    hr, hi, qr, qi = room(size), room(size), room(size), room(size)
    rr, ri, given, columns = room(square), room(square), room(users), room(users)
    floors, limit, level, least = room(users), room(1), room(1), room(1)
    zero = spread(0.0)
    for first in range(begin, end, LANES):
        read_channels(H, first, count, size, hr, hi)
        read_numbers(power, first, count, 1, limit)
        read_numbers(noise, first, count, 1, level)
        read_numbers(weights, first, count, users, given)
        if forced:
            reduce(hr, hi, users, antennas, given, qr, qi, rr, ri, least)
            for lane in range(min(LANES, count - first)):
                shortest[first + lane, 0] = least[lane]
            solve(users, antennas, qr, qi, rr, ri)
        else:
            for k in range(users):
                served = load(given, k)
                for at in range(k * antennas, (k + 1) * antennas):
                    store(qr, at, where_positive(served, load(hr, at), zero))
                    store(qi, at, where_positive(served, 0.0 - load(hi, at), zero))
        for k in range(users):
            length = zero
            for at in range(k * antennas, (k + 1) * antennas):
                length = length + load(qr, at) * load(qr, at) + load(qi, at) * load(qi, at)
            store(floors, k, length)
        if filled:
            fill(floors, given, users, limit, level, columns)
        else:
            share_power(given, users, limit, columns)
        for k in range(users):
            length = load(floors, k)
            scale = where_positive(length, root(load(columns, k) / length), zero)
            for n in range(antennas):
                at = k * antennas + n
                store(hr, n * users + k, load(qr, at) * scale)
                store(hi, n * users + k, load(qi, at) * scale)
        write_precoders(hr, hi, first, count, size, W)

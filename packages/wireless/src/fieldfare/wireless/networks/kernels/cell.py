# SPDX-License-Identifier: Apache-2.0
"""Eight cells at a time: Gram matrices, inverses, what users receive, and the precoders in the end.

Matrices are flat arrays of eights, entry (k, j) at k K + j; of Hermitian ones the lower half is
kept. With A = H H^H P / s2, the uplink shares L of sum 1 and S = L^1/2 A L^1/2 + I the directions
are W ~ H^H L^1/2 S^-1. As A L^1/2 S^-1 = L^-1/2 (I - S^-1), all that users receive of columns with
the side powers q follows from S^-1, without another product:

    power of column j        q_j (S^-1_jj - sum_k |S^-1_kj|^2)
    wanted at user k         q_k (1 - S^-1_kk)^2 / L_k
    of the column for j      q_j |S^-1_kj|^2 / L_k

each over the noise, once divided by the sum of the columns' powers.
"""

import numpy as np

from .compiled import part
from .vectors import LANES, larger, load, log, root, spread, store, where_positive

LEAST_SHARE = 1e-100
"""Of uplink power, so that nothing is divided by zero: users with less are switched off."""

LEAST_POWER = 1e-300


@part
def room(eights):  # type: ignore[no-untyped-def]
    """So many eights of zeros, none of them across two lines of the processor's cache."""
    raw = np.zeros((eights + 1) * LANES)
    first = (-raw.ctypes.data // raw.itemsize) % LANES
    return raw[first : first + eights * LANES]


@part
def read_channels(H, first, count, size, hr, hi):  # type: ignore[no-untyped-def]
    """Matrices first to first + 7 of H (B, size, 2) side by side; past the end the last again."""
    for lane in range(LANES):
        channel = min(first + lane, count - 1)
        for entry in range(size):
            hr[entry * LANES + lane] = H[channel, entry, 0]
            hi[entry * LANES + lane] = H[channel, entry, 1]


@part
def read_numbers(values, first, count, each, out):  # type: ignore[no-untyped-def]
    """Numbers (B, each) of eight channels side by side."""
    for lane in range(LANES):
        channel = min(first + lane, count - 1)
        for entry in range(each):
            out[entry * LANES + lane] = values[channel, entry]


@part
def write_numbers(values, first, count, each, out):  # type: ignore[no-untyped-def]
    """The other way round."""
    for lane in range(min(LANES, count - first)):
        for entry in range(each):
            out[first + lane, entry] = values[entry * LANES + lane]


@part
def products(xr, xi, across, yr, yi, down, inner, k, k1, j, j1, sign):  # type: ignore[no-untyped-def]
    """Four sums of products x y, or of x conj(y), that share what they load.

    Entry (k, n) of x is at k `across[0]` + n `across[1]`, of y at j `down[0]` + n `down[1]`.

    Args:
        sign: 1 for x y, -1 for x conj(y).

    Returns:
        Real and imaginary parts of (k, j), (k, j1), (k1, j), (k1, j1).
    """
    zero = spread(0.0)
    re, im, re_b, im_b, re_c, im_c, re_d, im_d = zero, zero, zero, zero, zero, zero, zero, zero
    for n in range(inner):
        at, at1 = k * across[0] + n * across[1], k1 * across[0] + n * across[1]
        to, to1 = j * down[0] + n * down[1], j1 * down[0] + n * down[1]
        a, b, a1, b1 = load(xr, at), load(xi, at), load(xr, at1), load(xi, at1)
        c, d, c1, d1 = load(yr, to), load(yi, to), load(yr, to1), load(yi, to1)
        d, d1 = d * sign, d1 * sign
        re, im = re + a * c - b * d, im + b * c + a * d
        re_b, im_b = re_b + a * c1 - b * d1, im_b + b * c1 + a * d1
        re_c, im_c = re_c + a1 * c - b1 * d, im_c + b1 * c + a1 * d
        re_d, im_d = re_d + a1 * c1 - b1 * d1, im_d + b1 * c1 + a1 * d1
    return re, im, re_b, im_b, re_c, im_c, re_d, im_d


@part
def multiply(xr, xi, rows, across, yr, yi, columns, down, inner, sign, lower, zr, zi):  # type: ignore[no-untyped-def]
    """z (rows, columns) = x y^T or x y^H; of Hermitian results the lower half is enough."""
    for k in range(0, rows, 2):
        k1 = min(k + 1, rows - 1)
        for j in range(0, min(columns, k + 2) if lower else columns, 2):
            j1 = min(j + 1, columns - 1)
            re, im, re_b, im_b, re_c, im_c, re_d, im_d = products(
                xr, xi, across, yr, yi, down, inner, k, k1, j, j1, sign
            )
            store(zr, k * columns + j, re)
            store(zi, k * columns + j, im)
            store(zr, k * columns + j1, re_b)
            store(zi, k * columns + j1, im_b)
            store(zr, k1 * columns + j, re_c)
            store(zi, k1 * columns + j, im_c)
            store(zr, k1 * columns + j1, re_d)
            store(zi, k1 * columns + j1, im_d)


@part
def gram(hr, hi, users, antennas, snr, ar, ai):  # type: ignore[no-untyped-def]
    """A = H H^H P / s2, lower half."""
    order = (antennas, 1)
    multiply(hr, hi, users, order, hr, hi, users, order, antennas, -1.0, True, ar, ai)
    scale = load(snr, 0)
    for k in range(users):
        for j in range(k + 1):
            store(ar, k * users + j, load(ar, k * users + j) * scale)
            store(ai, k * users + j, load(ai, k * users + j) * scale)


@part
def roots(share, users, out):  # type: ignore[no-untyped-def]
    """Square roots of K eights."""
    for k in range(users):
        store(out, k, root(load(share, k)))


@part
def invert(ar, ai, side, users, sr, si, vr, vi):  # type: ignore[no-untyped-def]
    """S^-1 in the lower half of s, by sweeping one user after the other (Gauss and Jordan).

    S is positive definite with eigenvalues from 1 on: no search for pivots.

    Args:
        ar, ai: A; side: roots of the shares.
        vr, vi: room for K eights each.
    """
    for k in range(users):
        mine = load(side, k)
        for j in range(k + 1):
            both = mine * load(side, j)
            store(sr, k * users + j, both * load(ar, k * users + j))
            store(si, k * users + j, both * load(ai, k * users + j))
        store(sr, k * users + k, load(sr, k * users + k) + 1.0)
    for p in range(users):
        inverse = 1.0 / load(sr, p * users + p)
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
                    store(sr, row + j, load(vr, j) * inverse)
                    store(si, row + j, 0.0 - load(vi, j) * inverse)
                store(sr, row + p, 0.0 - inverse)
                store(si, row + p, 0.0)
                continue
            a, b = load(vr, k) * inverse, load(vi, k) * inverse
            for j in range(k + 1):
                x, y = load(vr, j), load(vi, j)
                store(sr, row + j, load(sr, row + j) - a * x - b * y)
                store(si, row + j, load(si, row + j) - b * x + a * y)
            if k > p:
                store(sr, row + p, a)
                store(si, row + p, b)
    for k in range(users):
        for j in range(k + 1):
            store(sr, k * users + j, 0.0 - load(sr, k * users + j))
            store(si, k * users + j, 0.0 - load(si, k * users + j))


@part
def observe(ar, ai, share, side, sr, si, users, wanted, length):  # type: ignore[no-untyped-def]
    """What follows of S^-1 for every user, whatever the columns' powers.

    Fills:
        wanted: (1 - S^-1_kk)^2 / L_k.
        length: power of a column of q = 1; LEAST_POWER where it is none.
    """
    for k in range(users):
        store(wanted, k, 0.0)
        store(length, k, 0.0)
    for k in range(users):
        mine = load(side, k)
        row = k * users
        lost = load(wanted, k)
        leaked = load(length, k)
        for j in range(k):
            x, y = load(sr, row + j), load(si, row + j)
            # Summed, not one less S^-1_kk, which loses users of little power.
            product = mine * load(side, j) * (x * load(ar, row + j) + y * load(ai, row + j))
            power = x * x + y * y
            lost = lost + product
            leaked = leaked + power
            store(wanted, j, load(wanted, j) + product)
            store(length, j, load(length, j) + power)
        own = load(sr, row + k)
        lost = lost + own * load(share, k) * load(ar, row + k)
        store(wanted, k, lost)
        store(length, k, leaked)
    for k in range(users):
        lost = load(wanted, k)
        own = load(sr, k * users + k)
        store(length, k, larger(own * lost - load(length, k), spread(LEAST_POWER)))
        store(wanted, k, lost * lost / load(share, k))


@part
def respond(share, sr, si, q, users, wanted, length, signal, leak):  # type: ignore[no-untyped-def]
    """Wanted and interfering power of every user over the noise, for columns of side powers q."""
    total = spread(0.0)
    for k in range(users):
        total = total + load(q, k) * load(length, k)
        store(leak, k, 0.0)
    for k in range(users):
        mine = load(q, k)
        row = k * users
        got = load(leak, k)
        for j in range(k):
            x, y = load(sr, row + j), load(si, row + j)
            power = x * x + y * y
            got = got + power * load(q, j)
            store(leak, j, load(leak, j) + power * mine)
        store(leak, k, got)
    inverse = 1.0 / larger(total, spread(LEAST_POWER))
    for k in range(users):
        store(leak, k, load(leak, k) * inverse / load(share, k))
        store(signal, k, load(wanted, k) * load(q, k) * inverse)


@part
def weighted_rate(signal, leak, weights, users):  # type: ignore[no-untyped-def]
    """Weighted sum rate, in nats."""
    value = spread(0.0)
    for k in range(users):
        unwanted = 1.0 + load(leak, k)
        value = value + load(weights, k) * log((unwanted + load(signal, k)) / unwanted)
    return value


@part
def wmmse_step(signal, leak, weights, users, share, q):  # type: ignore[no-untyped-def]
    """The uplink shares and side powers that WMMSE goes on with."""
    total = spread(0.0)
    for k in range(users):
        unwanted = 1.0 + load(leak, k)
        everything = unwanted + load(signal, k)
        gain = load(weights, k) / unwanted
        b = gain * load(signal, k) / everything
        total = total + b
        store(share, k, b)
        store(q, k, gain * everything)
    inverse = 1.0 / larger(total, spread(LEAST_POWER))
    for k in range(users):
        store(share, k, larger(load(share, k) * inverse, spread(LEAST_SHARE)))


@part
def equal_shares(ar, weights, users, share):  # type: ignore[no-untyped-def]
    """One over the number of served users; the others (no channel, no weight) get nothing.

    Weights of users without channel become 0.
    """
    count = spread(0.0)
    for k in range(users):
        served = where_positive(load(ar, k * users + k), load(weights, k), spread(0.0))
        store(weights, k, served)
        count = count + where_positive(served, spread(1.0), spread(0.0))
    each = 1.0 / larger(count, spread(1.0))
    for k in range(users):
        store(share, k, where_positive(load(weights, k), each, spread(LEAST_SHARE)))


@part
def equal_columns(weights, length, users, q):  # type: ignore[no-untyped-def]
    """Side powers that give all served users' columns the same power."""
    for k in range(users):
        store(q, k, where_positive(load(weights, k), 1.0 / load(length, k), spread(0.0)))


@part
def precoders(  # type: ignore[no-untyped-def]
    hr, hi, users, antennas, side, q, sr, si, power, even, wr, wi, xr, xi
):
    """W (N, K) of the given power, from S^-1.

    Args:
        side: roots of the shares.
        even: an eight, positive where all columns get the same power; else one factor for all.
        wr, wi: room for N K eights; xr, xi: for K K.
    """
    for j in range(users):
        column = root(load(q, j))
        for k in range(users):
            scale = load(side, k) * column
            low, high = max(k, j), min(k, j)
            store(xr, k * users + j, scale * load(sr, low * users + high))
            imaginary = scale * load(si, low * users + high)
            store(xi, k * users + j, imaginary if k >= j else 0.0 - imaginary)
    # conj(H)^T X is the conjugate of H^T conj(X)
    multiply(hr, hi, antennas, (1, antennas), xr, xi, users, (1, users), users, -1.0, False, wr, wi)
    whole, used = spread(0.0), spread(0.0)
    for j in range(users):
        length = spread(0.0)
        for n in range(antennas):
            re, im = load(wr, n * users + j), load(wi, n * users + j)
            length = length + re * re + im * im
        whole = whole + length
        used = used + where_positive(length, spread(1.0), spread(0.0))
        alone = where_positive(length, 1.0 / root(length), spread(0.0))
        store(xr, j, where_positive(even, alone, spread(1.0)))
    whole = where_positive(even, used, whole)
    scale = where_positive(whole, root(load(power, 0) / larger(whole, spread(LEAST_POWER))), whole)
    for j in range(users):
        store(xr, j, load(xr, j) * scale)
    for n in range(antennas):
        for j in range(users):
            store(wr, n * users + j, load(wr, n * users + j) * load(xr, j))
            store(wi, n * users + j, 0.0 - load(wi, n * users + j) * load(xr, j))


@part
def write_precoders(wr, wi, first, count, size, W):  # type: ignore[no-untyped-def]
    """Into W (B, N K, 2)."""
    for lane in range(min(LANES, count - first)):
        for entry in range(size):
            W[first + lane, entry, 0] = wr[entry * LANES + lane]
            W[first + lane, entry, 1] = wi[entry * LANES + lane]

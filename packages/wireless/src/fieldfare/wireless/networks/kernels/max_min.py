# SPDX-License-Identifier: Apache-2.0
"""Max-min powers, eight cell-free networks at a time; the arithmetic of `signals.max_min`.

Of users k and access points l entry (k, l) is at k L + l, of pairs of users (k, i) at k K + i.
"""

from ...signals.max_min import COOLING, EVERY, FASTER, FLOOR, NEWTON, SLOWER, SLOWEST, WARM_UP
from .cell import read_numbers, room, write_numbers
from .compiled import compiled, part
from .vectors import LANES, exp, larger, load, log, root, smaller, spread, store, where_positive


@part
def listen(users, aps, beta, gain, leak, same, shared, mu, radiated, wanted, unwanted, cross):  # type: ignore[no-untyped-def]
    """What powers mu bring: rho_l^2, A_k, B_k and, where pilots are shared, C_ki."""
    zero = spread(0.0)
    for ap in range(aps):
        total = zero
        for k in range(users):
            value = load(mu, k * aps + ap)
            total = total + value * value
        store(radiated, ap, total)
    for k in range(users):
        amplitude, noise = zero, spread(1.0)
        for ap in range(aps):
            at = k * aps + ap
            amplitude = amplitude + load(gain, at) * load(mu, at)
            noise = noise + load(beta, at) * load(radiated, ap)
        if shared:
            for i in range(users):
                pair = k * users + i
                if not same[pair * LANES : (pair + 1) * LANES].max() > 0:
                    continue
                heard = zero
                for ap in range(aps):
                    at = i * aps + ap
                    heard = heard + load(mu, at) * load(leak, at) * load(beta, k * aps + ap)
                heard = heard * load(same, pair)
                store(cross, pair, heard)
                noise = noise + heard * heard
        store(wanted, k, amplitude)
        store(unwanted, k, root(noise))


@part
def contamination(users, aps, i, beta, leak, same, price, cross, cost):  # type: ignore[no-untyped-def]
    """What user i's powers cost those of its pilot, L eights: leak_il sum_k w_k C_ki beta_kl."""
    zero = spread(0.0)
    for ap in range(aps):
        store(cost, ap, zero)
    for k in range(users):
        pair = k * users + i
        if not same[pair * LANES : (pair + 1) * LANES].max() > 0:
            continue
        weight = load(price, k) * load(cross, pair)
        for ap in range(aps):
            store(cost, ap, load(cost, ap) + weight * load(beta, k * aps + ap))
    for ap in range(aps):
        store(cost, ap, load(cost, ap) * load(leak, i * aps + ap))


@part
def proved(  # type: ignore[no-untyped-def]
    users,
    aps,
    beta,
    gain,
    leak,
    same,
    shared,
    power,
    level,
    radiated,
    unwanted,
    cross,
    lowest,
    price,
    slack,
    costs,
    row,
):
    """An upper bound on the root of the smallest SINR of any powers, infinite if none is found.

    See `signals.max_min.bound`; `price` (K), `slack` (L), `row` (L), `costs` (K L) are room.
    """
    zero, tiny = spread(0.0), spread(1e-300)
    fixed = zero
    for k in range(users):
        weight = load(level, k) / load(unwanted, k)
        store(price, k, weight)
        fixed = fixed + weight
    for ap in range(aps):
        total = zero
        for k in range(users):
            total = total + load(price, k) * load(beta, k * aps + ap)
        store(slack, ap, total * root(load(radiated, ap)))
    if shared:
        for i in range(users):
            contamination(users, aps, i, beta, leak, same, price, cross, row)
            for ap in range(aps):
                store(costs, i * aps + ap, load(row, ap))
    target = lowest
    for number in range(NEWTON + 1):
        if number == NEWTON:
            target = target * (1 + 1e-9)
        value, slope = zero, fixed
        for ap in range(aps):
            square, mixed = zero, zero
            for k in range(users):
                at = k * aps + ap
                part_of = load(level, k) * load(gain, at)
                if shared:
                    cost = load(costs, at)
                    part_of = larger(part_of - target * cost, zero)
                    mixed = mixed + part_of * cost
                square = square + part_of * part_of
            length = root(square)
            left = length - target * load(slack, ap)
            edge = load(slack, ap) + mixed / larger(length, tiny)
            limit = root(load(power, ap))
            value = value + where_positive(left, limit * left, zero)
            slope = slope + where_positive(left, limit * edge, zero)
        value = value - target * fixed
        if number < NEWTON:
            target = target + where_positive(value, value / slope, zero)
    return where_positive(value, spread(1e300), target)


@compiled
def max_min(  # type: ignore[no-untyped-def]
    beta, gain, power, same, users, aps, shared, tolerance, most, begin, end, mu, found, steps
):
    """Powers of networks begin to end (begin a multiple of eight).

    Args:
        beta, gain: (B, K L); gain 0 for pairs not served. power: (B, L).
        same: (B, K K), 1 for different users of one pilot; any shape if not `shared`.
        tolerance: between the smallest root of a SINR and its bound, relative; most: steps.
        mu: (B, K L), filled.
        found: (B, 2), filled: smallest root of a SINR, and its bound. steps: (B, 1), filled.
    """
    count = len(beta)
    pairs, square = users * aps, users * users if shared else 1
    b, g, leak, m, best_m = room(pairs), room(pairs), room(pairs), room(pairs), room(pairs)
    costs = room(pairs if shared else 1)
    s, cross = room(square), room(square)
    limit, radiated, slack, row = room(aps), room(aps), room(aps), room(aps)
    wanted, unwanted, level, price = room(users), room(users), room(users), room(users)
    state, spent = room(2), room(1)
    zero, one = spread(0.0), spread(1.0)
    for first in range(begin, end, LANES):
        read_numbers(beta, first, count, pairs, b)
        read_numbers(gain, first, count, pairs, g)
        read_numbers(power, first, count, aps, limit)
        if shared:
            read_numbers(same, first, count, square, s)
        for ap in range(aps):  # fractional allocation: powers as the gains of amplitudes
            total = spread(1e-300)
            for k in range(users):
                total = total + load(g, k * aps + ap)
            each = load(limit, ap) / total
            for k in range(users):
                store(m, k * aps + ap, root(load(g, k * aps + ap) * each))
        for k in range(users):
            above, below = zero, spread(1e-300)
            for ap in range(aps):
                at = k * aps + ap
                mine = load(g, at)
                store(leak, at, where_positive(mine, mine / load(b, at), zero))
                above, below = above + mine * load(m, at), below + mine * mine
            store(level, k, above / below)
        best, bound, before = zero, spread(1e300), zero
        pace, going, floor = one, one, FLOOR
        store(spent, 0, zero)
        for step in range(most):
            listen(users, aps, b, g, leak, s, shared, m, radiated, wanted, unwanted, cross)
            lowest, mean = spread(1e300), zero
            for k in range(users):
                ratio = load(wanted, k) / load(unwanted, k)
                store(wanted, k, ratio)
                lowest, mean = smaller(lowest, ratio), mean + log(larger(ratio, spread(1e-150)))
            better = where_positive(going, lowest - best, zero)
            for at in range(pairs):
                store(best_m, at, where_positive(better, load(m, at), load(best_m, at)))
            best = where_positive(better, lowest, best)
            store(spent, 0, load(spent, 0) + going)
            if step % EVERY == EVERY - 1:
                proof = proved(
                    users,
                    aps,
                    b,
                    g,
                    leak,
                    s,
                    shared,
                    limit,
                    level,
                    radiated,
                    unwanted,
                    cross,
                    best,
                    price,
                    slack,
                    costs,
                    row,
                )
                bound = where_positive(going, smaller(bound, proof), bound)
                going = where_positive(bound - best * (1 + tolerance), going, zero)
                store(state, 0, going)
                if not state[:LANES].max() > 0:
                    break
            if step > WARM_UP:
                fell = before * (1 - 1e-9) - lowest
                slow = larger(pace * SLOWER, spread(SLOWEST))
                pace = where_positive(fell, slow, smaller(pace * FASTER, one))
            before = lowest
            mean = mean * (1.0 / users)
            target, total = exp(mean), zero
            for k in range(users):
                ratio = log(larger(load(wanted, k), spread(1e-150)))
                new = load(level, k) * exp(larger(pace * (mean - ratio), spread(-600.0)))
                store(level, k, new)
                total = total + new
            for k in range(users):
                store(level, k, load(level, k) / total)
                store(price, k, load(level, k) * target / load(unwanted, k))
            for ap in range(aps):
                store(row, ap, zero)
                store(slack, ap, zero)
            # costs hold the new numerators where pilots are shared
            for k in range(users):
                own, weight = load(level, k), load(price, k)
                if shared:
                    contamination(users, aps, k, b, leak, s, price, cross, radiated)
                for ap in range(aps):
                    at = k * aps + ap
                    push = own * load(g, at)
                    if shared:
                        push = larger(push - load(radiated, ap), push * floor)
                        store(costs, at, push)
                    store(row, ap, load(row, ap) + push * push)
                    store(slack, ap, load(slack, ap) + weight * load(b, at))
            for ap in range(aps):
                most_of = root(load(row, ap) / load(limit, ap))
                store(slack, ap, 1.0 / larger(larger(load(slack, ap), most_of), spread(1e-300)))
            for k in range(users):
                own = load(level, k)
                for ap in range(aps):
                    at = k * aps + ap
                    push = load(costs, at) if shared else own * load(g, at)
                    was = load(m, at)
                    store(m, at, was + pace * (push * load(slack, ap) - was))
            floor *= COOLING
        write_numbers(best_m, first, count, pairs, mu)
        store(state, 0, best)
        store(state, 1, bound)
        write_numbers(state, first, count, 2, found)
        write_numbers(spent, first, count, 1, steps)

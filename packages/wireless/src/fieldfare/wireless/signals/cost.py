# SPDX-License-Identifier: Apache-2.0
"""Operations of the precoders in real multiply-accumulates (MACs) for one channel.

A complex multiply-accumulate counts as four real ones. Counted from the formulas, not profiled:
products, Cholesky factors and triangular solves; not square roots, divisions and additions alone.
"""

COMPLEX = 4


def gram_macs(users: int, antennas: int) -> int:
    """H H^H, of which one triangle is enough."""
    return COMPLEX * users * (users + 1) // 2 * antennas


def product_macs(users: int, antennas: int) -> int:
    """W = H^H X with X (K, K)."""
    return COMPLEX * users * users * antennas


def cholesky_macs(users: int, columns: int) -> int:
    """Factor a (K, K) system and solve it for some columns."""
    return COMPLEX * (users**3 // 6 + columns * users * users)


def macs(method: str, users: int, antennas: int, *, iterations: float = 0, network: int = 0) -> int:
    """Of one channel with K users and N antennas.

    Args:
        method: a name of `methods.METHODS`.
        users, antennas: K, N.
        iterations: of wmmse, their mean number; of icgnn, the linear systems it solves; of greedy,
            the mean number of users tried, one more than it serves.
        network: of icgnn, real MACs of the message passing.
    """
    gram, product = gram_macs(users, antennas), product_macs(users, antennas)
    solve = cholesky_macs(users, users)
    step = solve + COMPLEX * users**3  # a system, and the product of its solution and Gram matrix
    if method == "mrt":
        return COMPLEX * users * antennas
    if method == "rzf":
        return gram + solve + product
    if method == "greedy":  # an inverse of those chosen, and its product with all users
        tries = range(1, min(users, round(iterations)) + 1)
        return gram + product + COMPLEX * sum(m**3 + m * m * users for m in tries)
    if method in ("zf", "zf-wf"):  # QR of (N, K), then a triangular solve with N columns
        factor = 2 * users * users * antennas - 2 * users**3 // 3
        return COMPLEX * (factor + users * users * antennas // 2)
    if method in ("wmmse", "icgnn"):
        return gram + product + int(iterations * step) + network
    raise ValueError(f"no operations are known for {method!r}")

# SPDX-License-Identifier: Apache-2.0
"""Operations of the precoders in real multiply-accumulates (MACs) for one channel.

A complex multiply-accumulate counts as four real ones. Counted from the formulas, not profiled:
products, inverses and triangular solves; not square roots, divisions and additions alone.
"""

COMPLEX = 4


def gram_macs(users: int, antennas: int) -> int:
    """H H^H, of which one triangle is enough."""
    return COMPLEX * users * (users + 1) // 2 * antennas


def product_macs(users: int, antennas: int) -> int:
    """W = H^H X with X (K, K)."""
    return COMPLEX * users * users * antennas


def inverse_macs(users: int) -> int:
    """The inverse of a Hermitian (K, K), one triangle."""
    return COMPLEX * users**3 // 2


def macs(method: str, users: int, antennas: int, *, iterations: float = 0, network: int = 0) -> int:
    """Of one channel with K users and N antennas.

    Args:
        method: a name of `methods.METHODS`.
        users, antennas: K, N.
        iterations: inverses: of wmmse, the mean number of iterations and one; of greedy, the mean
            number of users tried and one; of icgnn, of both its passes and of selection.
        network: of icgnn, real MACs of the message passing.
    """
    gram, product = gram_macs(users, antennas), product_macs(users, antennas)
    inverse = inverse_macs(users)
    if method == "mrt":
        return COMPLEX * users * antennas
    if method == "rzf":
        return gram + inverse + product
    if method in ("zf", "zf-wf"):  # QR of (N, K), then a triangular solve with N columns
        factor = 2 * users * users * antennas - 2 * users**3 // 3
        return COMPLEX * (factor + users * users * antennas // 2)
    if method in ("greedy", "wmmse", "icgnn"):
        return gram + product + int(iterations * inverse) + network
    raise ValueError(f"no operations are known for {method!r}")

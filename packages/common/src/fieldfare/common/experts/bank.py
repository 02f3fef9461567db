# SPDX-License-Identifier: Apache-2.0
"""Feed-forward experts side by side, each run on its own tokens only.

A bank of one expert is an ordinary feed-forward layer; `recycle` cuts it into more. Without an
activation the experts are products of two matrices, as LoRA's (Hu et al., arXiv 2106.09685).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "identity": lambda x: x,
}


class Weights(NamedTuple):
    """Of one expert, or of several along a first axis; R rows are H, or 2 H where it is gated."""

    inner: Tensor
    """(R, D)"""
    outer: Tensor
    """(O, H)"""
    inner_bias: Tensor | None
    """(R,)"""
    outer_bias: Tensor | None
    """(O,)"""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Weights":
        """All of them changed, those that are not there left out."""
        inner_bias, outer_bias = self.inner_bias, self.outer_bias
        return Weights(
            change(self.inner),
            change(self.outer),
            None if inner_bias is None else change(inner_bias),
            None if outer_bias is None else change(outer_bias),
        )


class Bank(nn.Module):
    """E feed-forward experts D -> H -> O of one shape, held in M matrices.

    y = W_o act(W_i x + b_i) + b_o; gated: y = W_o (act(a) * b) with (a, b) the halves of W_i x
    (Shazeer 2020, arXiv 2002.05202).

    Args:
        count: E.
        width: D.
        hidden: H of each expert.
        out: O; D by default.
        activation: one of ACTIVATIONS.
        gated: W_i has 2 H rows, the activated half first.
        bias: both maps have one.
        matrices: M, fewer than E where experts were merged: `index` says whose each one uses, and
            a token that chose two experts of one matrix runs it once.
    """

    inner: nn.Parameter
    outer: nn.Parameter
    inner_bias: nn.Parameter | None
    outer_bias: nn.Parameter | None
    index: Tensor

    def __init__(
        self,
        count: int,
        width: int,
        hidden: int,
        out: int | None = None,
        *,
        activation: str = "gelu",
        gated: bool = False,
        bias: bool = False,
        matrices: int | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {tuple(ACTIVATIONS)}, got {activation!r}")
        held = count if matrices is None else matrices
        if not 1 <= held <= count:
            raise ValueError(f"{held} matrices for {count} experts")
        rows, out = hidden * (2 if gated else 1), width if out is None else out
        self.activation, self.gated = activation, gated
        weights = Weights(
            torch.empty(held, rows, width),
            torch.empty(held, out, hidden),
            torch.empty(held, rows) if bias else None,
            torch.empty(held, out) if bias else None,
        )
        self._hold(weights, torch.arange(count) % held)
        self.reset_parameters()

    def _hold(self, weights: Weights, index: Tensor) -> None:
        """Take these matrices, which give all sizes."""
        self.count = len(index)
        self.matrices, self.out, self.hidden = weights.outer.shape
        self.width = weights.inner.shape[2]
        for name, value in weights._asdict().items():
            setattr(self, name, None if value is None else nn.Parameter(value))
        self.register_buffer("index", index)

    def reset_parameters(self) -> None:
        """As `nn.Linear` starts each of the matrices."""
        for weight, bias in ((self.inner, self.inner_bias), (self.outer, self.outer_bias)):
            bound = 1 / math.sqrt(weight.shape[2])
            nn.init.uniform_(weight, -bound, bound)
            if bias is not None:
                nn.init.uniform_(bias, -bound, bound)

    @property
    def weights(self) -> Weights:
        """All matrices, stacked."""
        return Weights(self.inner, self.outer, self.inner_bias, self.outer_bias)

    def like(self, weights: Weights, index: Tensor | None = None) -> "Bank":
        """A bank of the same kind with other matrices, whose shapes give its sizes.

        Args:
            weights: stacked.
            index: (E,) int64, matrix of each expert; by default each has its own.
        """
        bank = Bank.__new__(Bank)  # nothing is drawn
        nn.Module.__init__(bank)
        bank.activation, bank.gated = self.activation, self.gated
        index = torch.arange(len(weights.outer)) if index is None else index
        own = weights.each(lambda value: value.detach().clone())
        bank._hold(own, index.to(own.inner.device).clone())
        return bank.train(self.training)

    def fetch(self, matrix: int) -> Weights:
        """Of one matrix."""
        return self.weights.each(lambda value: value[matrix])

    def always(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, O), the sum of all experts with weight 1."""
        return self.forward(x, x.new_ones(len(x), self.count), None)

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor | None) -> Tensor:
        """Sum over each token's experts of weight times output.

        Args:
            x: (N, D).
            weights: (N, E), 0 where an expert is not chosen.
            chosen: (N, E) bool; None: all are, and one product serves them.

        Returns:
            (N, O).
        """
        if self.matrices != self.count:
            weights, chosen = self._by_matrix(weights, chosen)
        return self._all(x, weights) if chosen is None else self._dispatch(x, weights, chosen)

    def macs(self, chosen: Tensor) -> int:
        """Multiply-accumulates of what (N, E) bool chose, biases not counted."""
        by_matrix = chosen.new_zeros(len(chosen), self.matrices, dtype=torch.int32)
        pairs = by_matrix.index_add(1, self.index, chosen.int()) > 0
        rows = self.hidden * (2 if self.gated else 1)
        return int(pairs.sum()) * (rows * self.width + self.out * self.hidden)

    def run(self, x: Tensor, one: Weights) -> Tensor:
        """(N, D) -> (N, O) through the matrices of one expert."""
        hidden = self.activate(F.linear(x, one.inner, one.inner_bias))
        return F.linear(hidden, one.outer, one.outer_bias)

    def activate(self, hidden: Tensor) -> Tensor:
        """(..., R) -> (..., H)."""
        activate = ACTIVATIONS[self.activation]
        if not self.gated:
            return activate(hidden)
        first, second = hidden.chunk(2, dim=-1)
        return activate(first) * second

    def _by_matrix(self, weights: Tensor, chosen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        empty = weights.new_zeros(len(weights), self.matrices)
        summed = empty.index_add(1, self.index, weights)
        if chosen is None:
            return summed, None
        return summed, empty.index_add(1, self.index, chosen.to(empty.dtype)) > 0

    def _dispatch(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Tokens sorted by expert, one product for each expert that has any."""
        expert, token = chosen.T.nonzero(as_tuple=True)
        sizes = chosen.sum(dim=0).tolist()
        fetch = self._fetcher()
        outputs = [
            self.run(x[rows], fetch(number))
            for number, rows in enumerate(token.split(sizes))
            if len(rows)
        ]
        if not outputs:
            return x.new_zeros(len(x), self.out)
        weighted = torch.cat(outputs) * weights[token, expert, None]
        return weighted.new_zeros(len(x), self.out).index_add(0, token, weighted)

    def _fetcher(self) -> Callable[[int], Weights]:
        """As `fetch`, with one gradient for all matrices together."""
        parts = [None if value is None else value.unbind() for value in self.weights]
        inner, outer, inner_bias, outer_bias = parts
        assert inner is not None
        assert outer is not None
        return lambda number: Weights(
            inner[number],
            outer[number],
            None if inner_bias is None else inner_bias[number],
            None if outer_bias is None else outer_bias[number],
        )

    def _all(self, x: Tensor, weights: Tensor) -> Tensor:
        bias = None if self.inner_bias is None else self.inner_bias.flatten()
        hidden = F.linear(x, self.inner.flatten(0, 1), bias).unflatten(1, (self.matrices, -1))
        hidden = self.activate(hidden) * weights[..., None]
        outer = self.outer.transpose(0, 1).flatten(1)
        output = F.linear(hidden.flatten(1), outer)
        return output if self.outer_bias is None else output + weights @ self.outer_bias

    def extra_repr(self) -> str:
        """As torch's layers print themselves."""
        held = f" in {self.matrices}" if self.matrices != self.count else ""
        gated = ", gated" if self.gated else ""
        sizes = f"({self.width} -> {self.hidden} -> {self.out})"
        return f"{self.count}{held} x {sizes}, {self.activation}{gated}"

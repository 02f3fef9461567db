# SPDX-License-Identifier: Apache-2.0
"""Routers: from tokens to a logit for each expert.

A router is called with tokens (..., T, D) and a `State`, what the pass carries besides the tokens,
and returns logits (..., T, E) and the memory that the next layer's router gets. Logits are computed
in double precision, whatever the tokens' type: a choice is a step, and rounding must not take it.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class State:
    """What a pass carries besides the tokens (B, T, D); each router uses what it needs.

    Attributes:
        memory: what the router of the layer before handed on; None in the first.
        mask: (B, T) bool, tokens that count; None: all.
        keys: (B,) int64, a number of each sequence that never changes, for stochastic routers.
        classes: (B,) or (B, T) int64, for lookup routers: a protocol, a sensor, the expert that was
            settled before the network runs.
        task: (F,) or (B, F), what the whole input is like, for routers with a global part.

    Values of each sequence may be given for the flows that hold the sequences: with B a multiple
    of their number, each serves as many neighbours.
    """

    memory: Tensor | None = None
    mask: Tensor | None = None
    keys: Tensor | None = None
    classes: Tensor | None = None
    task: Tensor | None = None

    def remembering(self, memory: Tensor | None) -> "State":
        """The same with another memory."""
        return replace(self, memory=memory)


class Router(Protocol):
    """From tokens to logits."""

    count: int

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """Tokens (..., T, D) to logits (..., T, E), and the memory for the next layer."""


def scores(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b in double precision."""
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


class LinearRouter(nn.Module):
    """W x, learnt (Shazeer et al. 2017, arXiv 1701.06538, without its noise).

    Args:
        width: D.
        count: E.
        bias: adds one.
    """

    def __init__(self, width: int, count: int, bias: bool = False) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(torch.randn(count, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(count)) if bias else None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `Router`."""
        return scores(x, self.weight, self.bias), None


class RandomRouter(nn.Module):
    """W x + b, drawn once and never trained.

    Chen et al. 2023, SMoE-Dropout (arXiv 2303.01610); with k that grows (`choice.scheduled_k`) more
    experts at inference do no harm. W and b are buffers: no optimiser reaches them.

    Args:
        width: D.
        count: E.
        seed: of the draw.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, count: int, seed: int = 0) -> None:
        super().__init__()
        self.count = count
        generator = torch.Generator().manual_seed(seed)
        bound = width**-0.5
        for name, shape in (("weight", (count, width)), ("bias", (count,))):
            drawn = torch.empty(shape, device="cpu").uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, drawn)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `Router`."""
        return scores(x, self.weight, self.bias), None


class ResidualRouter(nn.Module):
    """W_2 tanh(W_1 x) or W x, plus a map of the logits of the layer before.

    Jin et al. 2024, *MoE++* (arXiv 2410.07348). The map starts at 0.

    Args:
        width: D.
        count: E.
        two_layer: with 8 E units between; otherwise one map.
    """

    def __init__(self, width: int, count: int, *, two_layer: bool = True) -> None:
        super().__init__()
        self.count = count
        first = 8 * count if two_layer else count
        self.first = nn.Parameter(torch.randn(first, width) * width**-0.5)
        shape = (count, first)
        self.second = nn.Parameter(torch.randn(shape) * first**-0.5) if two_layer else None
        self.residual = nn.Parameter(torch.zeros(count, count))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `Router`; the memory is the logits."""
        logits = scores(x, self.first)
        if self.second is not None:
            logits = scores(logits.tanh(), self.second)
        if state.memory is not None:
            logits = logits + scores(of_same_tokens(state.memory, x), self.residual)
        return logits, logits


class RecurrentRouter(nn.Module):
    """A recurrent cell runs over the layers; logits are a map of its state.

    Qiu et al. 2024, *Layerwise Recurrent Router* (arXiv 2408.06793): h_i = cell(A_i x_i, h_{i-1}),
    logits = B_i h_i, one cell for all layers. Tokens must keep their order from layer to layer.

    Args:
        width: D.
        count: E.
        size: R, of the state.
        cell: of the first layer's router, for all others; None makes one.
        kind: of the cell that is made.
    """

    def __init__(
        self,
        width: int,
        count: int,
        size: int = 256,
        *,
        cell: nn.Module | None = None,
        kind: Literal["gru", "rnn"] = "gru",
    ) -> None:
        super().__init__()
        self.count = count
        self.project = nn.Parameter(torch.randn(size, width) * width**-0.5)
        self.score = nn.Parameter(torch.randn(count, size) * size**-0.5)
        if cell is None:
            cell = nn.GRUCell(size, size) if kind == "gru" else nn.RNNCell(size, size)
            self.cell = cell
        self._shared = (cell,)  # in a tuple, so that only the first layer's file and count hold it

    @property
    def shared_cell(self) -> nn.Module:
        """The cell, for the routers of later layers."""
        return self._shared[0]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `Router`; the memory is the cell's state (..., T, R)."""
        tokens = scores(x, self.project).to(self.project.dtype).flatten(0, -2)
        before = tokens.new_zeros(tokens.shape)
        if state.memory is not None:
            before = of_same_tokens(state.memory, x).flatten(0, -2)
        after = self.shared_cell(tokens, before).view(*x.shape[:-1], -1)
        return scores(after, self.score), after


class LookupRouter(nn.Module):
    """The expert that a table names for a token's class (protocol, sensor), or the class itself.

    Args:
        count: E.
        table: expert of each class; by default class number c is expert c.
    """

    table: Tensor

    def __init__(self, count: int, table: Tensor | None = None) -> None:
        super().__init__()
        self.count = count
        table = torch.arange(count) if table is None else table.long()
        if not len(table) or int(table.min()) < 0 or int(table.max()) >= count:
            raise ValueError(f"the table must name experts from 0 to {count - 1}")
        self.register_buffer("table", table)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `Router`; logits are 0 and -inf.

        Raises:
            ValueError: the pass has no classes.
        """
        if state.classes is None:
            raise ValueError("a lookup router wants `classes` in the pass's state")
        classes = state.classes
        if classes.ndim < x.ndim - 1:
            classes = of_sequences(classes, x.shape[0])[:, None].expand(x.shape[:-1])
        return certain(self.table[classes], self.count), None


def of_same_tokens(memory: Tensor, x: Tensor) -> Tensor:
    """The memory (..., T, M), if it is of the tokens (..., T, D).

    Raises:
        ValueError: it is of others.
    """
    if memory.shape[:-1] != x.shape[:-1]:
        before, now = tuple(memory.shape[:-1]), tuple(x.shape[:-1])
        raise ValueError(
            f"memory of tokens {before} reached a layer of tokens {now}: layers over different "
            "tokens need chains of their own"
        )
    return memory


def certain(expert: Tensor, count: int) -> Tensor:
    """Expert numbers (...) to logits (..., E): 0 at the expert, -inf elsewhere."""
    logits = torch.full((*expert.shape, count), float("-inf"), device=expert.device)
    return logits.scatter(-1, expert[..., None], 0.0)


def of_sequences(values: Tensor, sequences: int) -> Tensor:
    """(N, ...) to (B, ...), B a multiple of N: each value serves B / N neighbours.

    Raises:
        ValueError: B is no multiple.
    """
    if values.shape[0] == sequences:  # also where the size is a symbol, in tracing
        return values
    if sequences % max(1, len(values)):
        raise ValueError(f"{len(values)} values do not fit {sequences} sequences")
    return values.repeat_interleave(sequences // max(1, len(values)), dim=0)

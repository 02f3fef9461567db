# SPDX-License-Identifier: Apache-2.0
"""Cells as genes: what each node adds up, and which of two cells are the same.

Zoph et al. 2018, *Learning Transferable Architectures for Scalable Image Recognition* (arXiv
1707.07012): a cell sees the outputs of the two cells before it; each of its nodes is the sum of two
operations on any of these two and the nodes before it; what no node uses is concatenated.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import combinations, permutations
from math import factorial, prod

from ..elastic.genes import Choice, Space, Value

INPUTS = 2
"""Outputs of cells before: 0 the older one, 1 the last one; nodes are 2, 3, ..."""

Edge = tuple[int, int]
"""The state that is taken, and the operation, by its place."""
Cell = tuple[tuple[Edge, Edge], ...]


@lru_cache(maxsize=4096)
def canonical_cell(cell: Cell) -> Cell:
    """The form that all cells share which are equal but for the order of their nodes and sums.

    Args:
        cell: nodes in any order, so long as none depends on itself.

    Raises:
        ValueError: a node depends on itself, or on one that is not there.
    """
    count, best = len(cell), None
    for order in permutations(range(count)):
        place = {INPUTS + node: INPUTS + number for number, node in enumerate(order)}
        place |= {number: number for number in range(INPUTS)}
        if any(edge[0] not in place for node in cell for edge in node):
            break
        found = tuple(
            tuple(sorted((place[source], kind) for source, kind in cell[node])) for node in order
        )
        if all(edge[0] < INPUTS + number for number, node in enumerate(found) for edge in node):
            best = found if best is None else min(best, found)
    if best is None:
        raise ValueError(f"{cell} is no cell: a node depends on itself, or on one not there")
    return best  # type: ignore[return-value]


def count_cells(nodes: int, operations: int) -> int:
    """How many cells differ, exactly.

    By Burnside's lemma: of every permutation of the nodes the cells that it leaves as they are.
    Nodes of one of its cycles cannot depend on each other; cycles without dependence in a circle
    are counted by taking off those that nothing depends on, with inclusion and exclusion.
    """
    total = 0
    for lengths in _partitions(nodes, nodes):
        sizes = Counter(lengths)
        like = factorial(nodes) // prod(n**c * factorial(c) for n, c in sizes.items())
        total += like * _unchanged(lengths, operations)
    return total // factorial(nodes)


def _partitions(total: int, most: int) -> Iterator[tuple[int, ...]]:
    if not total:
        yield ()
    for first in range(min(total, most), 0, -1):
        for rest in _partitions(total - first, first):
            yield (first, *rest)


def _unchanged(lengths: tuple[int, ...], operations: int) -> int:
    """Labelled cells that a permutation with cycles of these lengths leaves as they are."""

    @cache
    def of(cycles: frozenset[int]) -> int:
        total = 0 if cycles else 1
        for size in range(1, len(cycles) + 1):
            for last in combinations(sorted(cycles), size):
                rest = cycles - set(last)
                ways = prod(_pairs(lengths[one], [lengths[o] for o in rest]) for one in last)
                total += (-1) ** (size + 1) * of(rest) * ways
        return total

    def _pairs(length: int, before: list[int]) -> int:
        """Sums of two that turn into themselves when a cycle of that length is gone through."""
        fixed = operations * (INPUTS + sum(other for other in before if length % other == 0))
        swapped = sum(o for o in before if length % o and 2 * length % o == 0) // 2
        return fixed * (fixed + 1) // 2 + operations * swapped

    return of(frozenset(range(len(lengths))))


def cell_neighbours(cell: Cell, operations: int) -> list[Cell]:
    """Cells that differ in one operation or one origin of a sum, canonical, each once."""
    own = canonical_cell(cell)
    found: dict[Cell, None] = {}
    for number, node in enumerate(own):
        later = _depending(own, number)
        sources = [one for one in range(INPUTS + len(own)) if one not in later]
        for side, (source, kind) in enumerate(node):
            edges = [(source, other) for other in range(operations)]
            for edge in edges + [(other, kind) for other in sources]:
                new = (node[0], edge) if side else (edge, node[1])
                found.setdefault(canonical_cell((*own[:number], new, *own[number + 1 :])))
    found.pop(own, None)
    return list(found)


def _depending(cell: Cell, number: int) -> set[int]:
    """A node of a canonical cell, and all states that come of it."""
    found = {INPUTS + number}
    for place, node in enumerate(cell):
        if any(source in found for source, _ in node):
            found.add(INPUTS + place)
    return found


@dataclass(frozen=True)
class CellSpace(Space):
    """Cells beside other genes; make it by `cell_space`.

    Isomorphic cells are one choice. `sample` draws each gene by itself, so cells of many orders are
    drawn more often.

    Attributes:
        kinds: of cells, as their genes begin.
        nodes: of each.
        operations: names; the cheapest first.
    """

    kinds: tuple[str, ...] = ()
    nodes: int = 0
    operations: tuple[str, ...] = ()
    _own: frozenset[str] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if bound := self._own & ({*self.needs} | {other for other, _ in self.needs.values()}):
            raise ValueError(f"gene {min(bound)}: of a cell, which always speaks")

    def cell(self, choice: Mapping[str, Value], kind: str) -> Cell:
        """One of its cells, canonical."""
        return canonical_cell(
            tuple(
                tuple(
                    (int(choice[source]), self.operations.index(str(choice[name])))
                    for source, name in genes
                )
                for genes in self._names(kind)
            )
        )

    def canonical(self, values: Mapping[str, Value]) -> Choice:
        """As `Space.canonical`, with every cell in its canonical form."""
        found: dict[str, Value] = dict(super().canonical(values))
        for kind in self.kinds:
            found |= self.genes_of(kind, self.cell(found, kind))
        return Choice(found)

    def genes_of(self, kind: str, cell: Cell) -> dict[str, Value]:
        """A cell as genes."""
        return {
            gene: value
            for genes, node in zip(self._names(kind), cell, strict=True)
            for (source, name), edge in zip(genes, node, strict=True)
            for gene, value in ((source, edge[0]), (name, self.operations[edge[1]]))
        }

    def largest(self) -> Choice:
        """The last value of every gene."""
        return self.canonical(super().largest())

    def neighbours(self, choice: Mapping[str, Value]) -> list[Choice]:
        """Networks that differ in one gene, whatever the order of the nodes, each once."""
        own = self.canonical(choice)
        found = dict.fromkeys(super().neighbours(own))
        for kind in self.kinds:
            for cell in cell_neighbours(self.cell(own, kind), len(self.operations)):
                found.setdefault(self.canonical({**own, **self.genes_of(kind, cell)}))
        return list(found)

    def count(self) -> int:
        """How many networks there are, exactly."""
        others = {gene: values for gene, values in self.genes.items() if gene not in self._own}
        cells = [count_cells(self.nodes, len(self.operations))] * len(self.kinds)
        return Space(others, self.needs).count() * prod(cells)

    def every(self) -> Iterator[Choice]:
        """All networks, each once; for small spaces."""
        return (choice for choice in super().every() if choice == self.canonical(choice))

    def restricted(self, allowed: Mapping[str, tuple[Value, ...]]) -> Space:
        """Not offered: fewer values of one node would be other cells; raises ValueError."""
        raise ValueError(f"{', '.join(allowed)}: a space of cells cannot be restricted")

    def _names(self, kind: str) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        return _gene_names(kind, self.nodes)


def cell_space(
    others: Space,
    nodes: int,
    operations: tuple[str, ...],
    kinds: tuple[str, ...] = ("normal", "reduction"),
) -> CellSpace:
    """Cells, genes `normal1_from1`, `normal1_op1` ..., behind other genes.

    Args:
        nodes: of each cell, at least 1.
        operations: names; the cheapest first.
    """
    genes: dict[str, tuple[Value, ...]] = {}
    for kind in kinds:
        for number, node in enumerate(_gene_names(kind, nodes)):
            for source, name in node:
                genes[source], genes[name] = tuple(range(INPUTS + number)), operations
    return CellSpace(
        {**others.genes, **genes}, others.needs, kinds, nodes, operations, frozenset(genes)
    )


def _gene_names(kind: str, nodes: int) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    first, second = (
        [
            (f"{kind}{number}_from{side}", f"{kind}{number}_op{side}")
            for number in range(1, nodes + 1)
        ]
        for side in (1, 2)
    )
    return list(zip(first, second, strict=True))

# SPDX-License-Identifier: Apache-2.0
"""What may vary in a network, and one choice of it; numbers only, no tensors.

A gene is a name with a few values, smallest first. A gene may be silent: the kernel of a stage's
fourth block says nothing where the stage runs two. Two choices that differ in silent genes are the
same network, so a choice is always canonical: a silent gene has its largest value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = int | float | str


class Choice(Mapping[str, Value]):
    """Gene to value, in the space's order; hashable, equal by content."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, gene: str) -> Value:
        return self._values[gene]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items(), key=lambda item: item[0])))

    def __repr__(self) -> str:
        return f"Choice({self._values})"

    def number(self, gene: str) -> int:
        """A gene that counts something.

        Raises:
            TypeError: it does not.
        """
        value = self._values[gene]
        if not isinstance(value, int):
            raise TypeError(f"{gene}: {value!r} is not a whole number")
        return value


@dataclass(frozen=True)
class Space:
    """All choices.

    Attributes:
        genes: name to values, smallest network first.
        needs: gene to (another gene, the values of that one at which this one speaks). A gene
            speaks only if the one it needs does.

    Raises:
        ValueError: a gene without values or with one twice, or needs that name no gene or go in a
            circle.
    """

    genes: Mapping[str, tuple[Any, ...]]
    needs: Mapping[str, tuple[str, tuple[Any, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for gene, values in self.genes.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f"gene {gene}: needs values, each once, got {values}")
        for gene, (other, _) in self.needs.items():
            if gene not in self.genes or other not in self.genes:
                raise ValueError(f"gene {gene} needs {other}: the space has no such gene")
            seen = {gene}
            while other in self.needs:
                if other in seen:
                    raise ValueError(f"gene {gene} needs itself")
                seen.add(other)
                other = self.needs[other][0]

    def largest(self) -> Choice:
        """The last value of every gene."""
        return Choice({gene: values[-1] for gene, values in self.genes.items()})

    def smallest(self) -> Choice:
        """The first value of every gene."""
        return self.canonical({gene: values[0] for gene, values in self.genes.items()})

    def canonical(self, values: Mapping[str, Value]) -> Choice:
        """The choice that stands for a network; silent genes may be missing.

        Raises:
            ValueError: a value that is not the gene's, a gene missing or one too many.
        """
        if unknown := values.keys() - self.genes.keys():
            raise ValueError(f"no gene is named {sorted(unknown)[0]}")
        found: dict[str, Value] = {}
        for gene, allowed in self.genes.items():
            if not self._speaks(gene, values):
                found[gene] = allowed[-1]
            elif gene not in values:
                raise ValueError(f"gene {gene} is missing")
            elif values[gene] not in allowed:
                raise ValueError(f"gene {gene}: {values[gene]} is none of {allowed}")
            else:
                found[gene] = values[gene]
        return Choice(found)

    def _speaks(self, gene: str, values: Mapping[str, Value]) -> bool:
        while gene in self.needs:
            gene, speaking = self.needs[gene]
            if gene not in values:
                raise ValueError(f"gene {gene} is missing")
            if values[gene] not in speaking:
                return False
        return True

    def sample(self, rng: np.random.Generator) -> Choice:
        """Each gene by itself, evenly; so not every network is as likely as every other."""
        return self.canonical(
            {gene: values[int(rng.integers(len(values)))] for gene, values in self.genes.items()}
        )

    def neighbours(self, choice: Mapping[str, Value]) -> list[Choice]:
        """Networks that differ in one gene, each once, in the genes' order."""
        own = self.canonical(choice)
        found: dict[Choice, None] = {}
        for gene, values in self.genes.items():
            if self._speaks(gene, own):
                for value in values:
                    found.setdefault(self.canonical({**own, gene: value}))
        found.pop(own, None)
        return list(found)

    def encode(self, choice: Mapping[str, Value]) -> NDArray[np.float32]:
        """One-hot, gene after gene; a silent gene is all zero. (sum of numbers of values,)."""
        own = self.canonical(choice)
        codes = []
        for gene, values in self.genes.items():
            code = np.zeros(len(values), np.float32)
            code[values.index(own[gene])] = self._speaks(gene, own)
            codes.append(code)
        return np.concatenate(codes)

    def count(self) -> int:
        """How many networks there are, exactly."""
        children: dict[str, list[str]] = {}
        for gene, (other, _) in self.needs.items():
            children.setdefault(other, []).append(gene)

        def of(gene: str) -> int:
            inner = children.get(gene, [])
            return sum(
                prod(of(child) for child in inner if value in self.needs[child][1])
                for value in self.genes[gene]
            )

        return prod(of(gene) for gene in self.genes if gene not in self.needs)

    def every(self) -> Iterator[Choice]:
        """All networks, each once, smallest values first; for small spaces."""

        def rest(names: list[str], values: dict[str, Value]) -> Iterator[Choice]:
            if not names:
                yield Choice({gene: values[gene] for gene in self.genes})
                return
            gene, allowed = names[0], self.genes[names[0]]
            for value in allowed if self._speaks(gene, values) else allowed[-1:]:
                yield from rest(names[1:], {**values, gene: value})

        yield from rest(sorted(self.genes, key=self._depth), {})

    def _depth(self, gene: str) -> int:
        return 1 + self._depth(self.needs[gene][0]) if gene in self.needs else 0

    def restricted(self, allowed: Mapping[str, tuple[Any, ...]]) -> "Space":
        """The space with fewer values of the named genes.

        Raises:
            ValueError: no such gene, or values that are not the gene's.
        """
        genes = dict(self.genes)
        for gene, values in allowed.items():
            if gene not in genes:
                raise ValueError(f"no gene is named {gene}")
            genes[gene] = tuple(value for value in genes[gene] if value in values)
            if len(genes[gene]) != len(values):
                raise ValueError(f"gene {gene}: {values} are not all of {self.genes[gene]}")
        return Space(genes, self.needs)

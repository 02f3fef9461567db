# SPDX-License-Identifier: Apache-2.0
"""Sample order as a pure function of seed and position: the same at any number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from ..errors import InputError


@dataclass(frozen=True, slots=True)
class Draw:
    """What a training data set is indexed with.

    Attributes:
        index: which sample, 0 to len(dataset) - 1.
        seed: entropy for this draw's augmentation: (run seed, global draw number). Give it to
            `numpy.random.default_rng`; a sample then depends on nothing but its draw.
    """

    index: int
    seed: tuple[int, int]

    def rng(self) -> np.random.Generator:
        """A generator for this draw alone."""
        return np.random.default_rng(self.seed)


class DrawSampler(Sampler[list[Draw]]):
    """Batches of draws from a first to a last step, each epoch a fresh permutation.

    Step s of the run takes draws s * batch to (s + 1) * batch - 1; of these, process `rank` of
    `world` takes its own contiguous share. Nothing but the step needs to be remembered to resume,
    also in mid-epoch, and two processes see together what one would see alone.

    Args:
        length: samples in the data set.
        batch: samples a step over all processes, a multiple of `world`.

    Raises:
        InputError: no samples, or a batch that `world` does not divide.
    """

    def __init__(
        self, length: int, batch: int, *, seed: int, first: int, last: int, rank: int, world: int
    ) -> None:
        if length < 1:
            raise InputError("the data set is empty")
        if batch % world:
            raise InputError(f"batch size {batch} is not a multiple of {world} processes")
        self.length, self.batch, self.seed = length, batch, seed
        self.first, self.last, self.rank, self.world = first, last, rank, world
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        share = self.batch // self.world
        for step in range(self.first, self.last):
            start = step * self.batch + self.rank * share
            yield [self._draw(number) for number in range(start, start + share)]

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self.length)
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
            self._epoch = epoch
        return Draw(int(self._order[position]), (self.seed, number))

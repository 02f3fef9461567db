# SPDX-License-Identifier: Apache-2.0
"""Training patches of phantoms drawn on the way: none is kept, none is drawn twice."""

from collections import OrderedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.training import Draw

from ..data.patches import DataSettings, InputConfig, PatchDataset, Sample, cut_patch, sample_of
from ..data.preparation import prepare
from ..data.regions import to_regions
from ..phantoms.generate import SCHEME, make_phantom

SHARED = {3: 8, 2: 24}
"""Patches that are taken of one phantom, by their dimensions: to draw it takes half a second at
2 mm, a step on two patches of 48^3 about one."""

ALIVE = 4
"""Phantoms that the patches of neighbouring draws are of, so that a batch does not see only one."""


class SyntheticPatches(Dataset[dict[str, Tensor]]):
    """As `PatchDataset`, of cases and of phantoms.

    Which phantom a draw is of, and what it looks like, follows from the draw alone: a run that was
    interrupted goes on as if it had not been.

    Args:
        share: of the patches that are of phantoms, above 0 to 1.
        cases: the others; None only where the share is 1.
    """

    def __init__(
        self, share: float, cases: PatchDataset | None, settings: DataSettings, config: InputConfig
    ) -> None:
        self.share, self.cases, self.settings, self.config = share, cases, settings, config
        self._kept: OrderedDict[tuple[int, int], Sample] = OrderedDict()

    def __len__(self) -> int:
        return len(self.cases) if self.cases else ALIVE

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = draw.rng()
        if self.cases and rng.random() >= self.share:
            return self.cases[draw]
        seed, number = draw.seed
        group, place = divmod(number, ALIVE * SHARED[self.config.ndim])
        return cut_patch(self._sample(seed, group * ALIVE + place % ALIVE), self.settings, rng)

    def _sample(self, seed: int, number: int) -> Sample:
        """A phantom made ready; the last ALIVE are kept."""
        key = (seed, number)
        if key not in self._kept:
            # The third number tells these from the cases of `med-seg phantom` of the same seed.
            self._kept[key] = draw_sample(np.random.default_rng((seed, number, 1)), self.config)
            while len(self._kept) > ALIVE:
                self._kept.popitem(last=False)
        return self._kept[key]


def draw_sample(rng: np.random.Generator, config: InputConfig) -> Sample:
    """Draw a phantom at the network's spacing and make it ready as a case that was read."""
    phantom = make_phantom(rng, config.spacing)
    prepared = prepare(phantom.images, phantom.affine, config.spacing, ndim=config.ndim)
    return sample_of(prepared, to_regions(phantom.labels, SCHEME), config)

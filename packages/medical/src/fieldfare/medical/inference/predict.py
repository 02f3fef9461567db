# SPDX-License-Identifier: Apache-2.0
"""A trained network made ready: tiles of four modalities in, probabilities of the regions out."""

import itertools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.trust.guard import Guard, read_guard
from fieldfare.common.trust.knowledge import Knowledge, knowledge_of
from fieldfare.common.weights import ModelCard, locate

from ..data.naming import MODALITIES
from ..data.regions import REGIONS
from ..networks.config import NetworkConfig

TTA = {"none": 0, "axial": 2, "full": 3}
"""Axes, counted from the first, over whose flips predictions are averaged: of canonical arrays
left-right, front-back and up-down. `full` gives 8 predictions in 3D; slices have 4 at most."""


class Predictor:
    """Calls a network on batches of tiles, in evaluation mode.

    A 2D network sees the slices along the last axis, which become its batch.

    Args:
        network: has `config` and gives logits (B, 3, *size) for (B, 4, *size).
        device: a name of `fieldfare.common.runtime.DEVICES`.
        precision: `auto` computes in bfloat16 where the processor does so natively.
        tta: a key of `TTA`.
        others: further members of an ensemble, whose probabilities are averaged with this one's by
            `run.segment`; a call does not ask them.
        knowledge: what the network was trained on, as its file says.
        guard: asks for the answers to slightly changed images too, see `inference.guard`.

    Raises:
        InputError: a network of other modalities or regions, or no such device or precision.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str = "auto",
        precision: str = "auto",
        tta: str = "none",
        others: "tuple[Predictor, ...]" = (),
        knowledge: Knowledge | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.others, self.knowledge, self.guard = others, knowledge, guard
        self.config = cast(NetworkConfig, network.config)
        if tuple(self.config.modalities) != MODALITIES or tuple(self.config.regions) != REGIONS:
            raise InputError(
                f"the model maps {', '.join(self.config.modalities)} to "
                f"{', '.join(self.config.regions)}; med-seg infer takes {', '.join(MODALITIES)} "
                f"to {', '.join(REGIONS)}"
            )
        self.ndim = self.config.ndim
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.network = network.eval().to(self.device)
        if self.ndim == 2:  # slices in this order take 0.65 of the time on a processor
            self.network = self.network.to(memory_format=torch.channels_last)
        axes = range(min(TTA[tta], self.ndim))
        self.flips = [
            flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)
        ]

    @property
    def multiple(self) -> int:
        """Tiles whose sides are multiples of this need no padding inside the network."""
        return 16 if self.ndim == 3 else 32

    @torch.inference_mode()
    def __call__(
        self, tiles: NDArray[np.float32], starts: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Predict tiles.

        Args:
            tiles: (N, 4, X, Y, Z) float32, normalised images.
            starts: not used; `fieldfare.common.windows.stream` gives them.

        Returns:
            Probabilities of WT, TC, ET, (N, 3, X, Y, Z) float32 in [0, 1].
        """
        images = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device)
        with self.autocast():
            result = self.probabilities(images)
        return result.float().cpu().numpy()

    def autocast(self) -> AbstractContextManager[object]:
        """Where the network computes in `dtype`."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def probabilities(self, images: Tensor) -> Tensor:
        """As a call, from and to tensors on the device: the mean over the flips."""
        total: Tensor | None = None
        for flip in self.flips:
            axes = [2 + axis for axis in flip]
            part = torch.sigmoid(self._logits(images.flip(axes)).float()).flip(axes)
            total = part if total is None else total.add_(part)
        assert total is not None  # the first flip is none
        return total.div_(len(self.flips))

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor
        if self.ndim == 3:
            logits = self.network(images)
            return logits
        count, channels, *plane, depth = images.shape
        slices = images.permute(0, 4, 1, 2, 3).reshape(count * depth, channels, *plane)
        logits = self.network(slices.contiguous(memory_format=torch.channels_last))
        return logits.reshape(count, depth, -1, *plane).permute(0, 2, 3, 4, 1)


def split_names(names: str) -> list[str]:
    """The models of an ensemble, `one+two`; a file may have a plus in its name."""
    return [names] if Path(names).is_file() else names.split("+")


def load_predictor(
    names: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    tta: str = "none",
    guarded: bool = False,
) -> tuple[Predictor, ModelCard]:
    """A predictor by model name or path, and the model's card; of several with a plus between.

    The card of an ensemble is that of the first with all names and summaries; what the first knows,
    and its guard, stand for all.

    Args:
        guarded: with the guard that the model's file keeps.

    Raises:
        InputError: no such model, one that keeps no guard, or what `Predictor` refuses.
    """
    from ..networks.models import TASK, load_model

    loaded = [load_model(name) for name in split_names(names)]
    main = split_names(names)[0]
    guard = read_guard(locate(main, TASK)) if guarded else None
    if guarded and guard is None:
        raise InputError(f"--guard: {main} keeps no guard; do without, or choose another model")
    (network, card), *others = loaded
    members = tuple(
        Predictor(other, device=device, precision=precision, tta=tta) for other, _ in others
    )
    if others:
        card = replace(
            card,
            name="+".join(one.name for _, one in loaded),
            summary=" Averaged with: ".join(one.summary for _, one in loaded),
            metrics=(),
        )
    first = Predictor(
        network,
        device=device,
        precision=precision,
        tta=tta,
        others=members,
        knowledge=knowledge_of(main, TASK),
        guard=guard,
    )
    return first, card

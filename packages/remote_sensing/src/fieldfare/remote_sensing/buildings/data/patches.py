# SPDX-License-Identifier: Apache-2.0
"""Training data: random patches of labelled scenes, augmented."""

import math
from collections.abc import Callable

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw

from .labels import edges
from .sensors import pixel_of
from .table import LabelledScene


def augmentation(patch: int, bands: int) -> A.Compose:
    """Rotation by any angle, mirror images, light, colour, sharpness, noise and compression.

    Sharpness: imagery coarser than the model's pixels comes enlarged, so a part of the patches is
    reduced by up to 2.2 and enlarged again; other cameras blur or sharpen.

    Takes image (h, w, bands) uint8 and masks (h, w) float32, both of at least 1.42 patch, and gives
    them with side patch.
    """
    colour = [
        A.HueSaturationValue(25, 60, 20, p=0.7),
        A.RGBShift(30, 30, 30, p=0.4),
        A.ToGray(p=0.1),
        A.ImageCompression(quality_range=(40, 95), p=0.3),
    ]
    soft = {"downscale": 3, "upscale": 1}  # OpenCV's numbers of area means and linear
    sharpness = [A.GaussianBlur(sigma_limit=(0.5, 1.5), blur_limit=0), A.Sharpen()]
    if bands <= 4:  # more OpenCV does not resize
        sharpness.insert(0, A.Downscale(scale_range=(0.45, 0.95), interpolation_pair=soft))
    return A.Compose(
        [
            A.Affine(rotate=(-180, 180), border_mode=4, p=0.5),  # 4: reflected, edge not doubled
            A.CenterCrop(patch, patch),
            A.D4(p=1),
            A.OneOf(sharpness, p=0.45),
            A.RandomBrightnessContrast((-0.3, 0.3), (-0.4, 0.3), p=0.7),
            A.RandomGamma((60, 160), p=0.3),
            *(colour if bands == 3 else []),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.2),
        ]
    )


def seed_each(augment: A.BaseCompose, rng: np.random.Generator) -> None:
    """Seed every transform for itself.

    `set_random_seed` gives all of them one seed, and with it one answer to whether they apply: a
    patch would get either no change of light and colour at all or every one.
    """
    augment.set_random_seed(int(rng.integers(2**31)))
    for transform in augment.transforms:
        if isinstance(transform, A.BaseCompose):
            seed_each(transform, rng)
        else:
            transform.set_random_seed(int(rng.integers(2**31)))


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Random patches at a common ground sampling distance, augmented.

    Indexed with a `Draw`; everything random comes from it. One epoch is as many patches as cover
    the scenes once.

    Args:
        scenes: whose places are drawn in proportion to their ground.
        gsd: metres per pixel of the patches.
        patch: side in pixels.
        outputs: names of the channels of the truth, see `truth_maps`.
        zoom: patches are read at a ground sampling distance up to this factor finer or coarser.
        choose: the expert of a pixel size in metres; of networks with experts, each of which gets
            about as many patches.
    """

    def __init__(
        self,
        scenes: list[LabelledScene],
        *,
        gsd: float,
        patch: int,
        outputs: tuple[str, ...],
        zoom: float = 1.6,
        choose: Callable[[float], int] | None = None,
    ) -> None:
        if not scenes:
            raise InputError("the table has no scene in the split train")
        self.scenes, self.gsd, self.patch, self.outputs = scenes, gsd, patch, outputs
        self.zoom = zoom
        self.augment = augmentation(patch, len(scenes[0].bands))
        self.expert = [choose(pixel_of(scene)) for scene in scenes] if choose else []
        rows: dict[int, list[int]] = {}
        for number, scene in enumerate(scenes):
            height, width = (scene.window.height, scene.window.width)
            ground = height * scene.gsd[1] * width * scene.gsd[0]
            own = rows.setdefault(self.expert[number] if choose else 0, [])
            own += [number] * max(1, round(ground / (patch * gsd) ** 2))
        most = max(map(len, rows.values()))
        self.index = [n for own in rows.values() for n in own * round(most / len(own))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = draw.rng()
        number = self.index[draw.index]
        scene = self.scenes[number]
        side = math.ceil(self.patch * 1.42)
        zoom = math.exp(rng.uniform(-1, 1) * math.log(self.zoom))
        metres = side * self.gsd * zoom
        window = scene.window
        height = min(metres / scene.gsd[1], window.height)
        width = min(metres / scene.gsd[0], window.width)
        top = window.row_off + rng.random() * (window.height - height)
        left = window.col_off + rng.random() * (window.width - width)
        shape = (
            max(1, round(height * scene.gsd[1] / self.gsd / zoom)),
            max(1, round(width * scene.gsd[0] / self.gsd / zoom)),
        )
        image, valid = scene.read(top, left, height, width, shape)
        instances = scene.labels.instances(top, left, height, width, shape)
        if min(shape) < side:  # a scene smaller than this is continued by reflection, all around
            pad = [((side - length) // 2, (side - length + 1) // 2) for length in shape]
            image = np.pad(image, (*pad, (0, 0)), mode="symmetric")
            valid, instances = (np.pad(a, pad, mode="symmetric") for a in (valid, instances))
        seed_each(self.augment, rng)
        found = self.augment(
            image=image, masks=[instances.astype(np.float32), valid.astype(np.float32)]
        )
        numbers, known = found["masks"]
        truth = truth_maps(numbers.round().astype(np.int32), self.outputs)
        sample = {
            "image": torch.from_numpy(found["image"].transpose(2, 0, 1).copy()).float() / 255,
            "truth": torch.from_numpy(truth),
            "weight": torch.from_numpy((known > 0.5).astype(np.float32)),
        }
        return sample | ({"expert": torch.tensor(self.expert[number])} if self.expert else {})


def truth_maps(instances: np.ndarray, outputs: tuple[str, ...]) -> np.ndarray:
    """(h, w) building numbers -> (outputs, h, w) float32.

    `building` and `edge` are 0 and 1, `instances` the numbers themselves.
    """
    maps: dict[str, Callable[[], np.ndarray]] = {
        "building": lambda: instances > 0,
        "edge": lambda: edges(instances),
        "instances": lambda: instances,
    }
    return np.stack([maps[name]() for name in outputs]).astype(np.float32)

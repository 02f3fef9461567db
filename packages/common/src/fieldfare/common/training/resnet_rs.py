# SPDX-License-Identifier: Apache-2.0
"""The recipe that ResNet-RS was trained by on ImageNet, as settings of `fit`.

Source: Revisiting ResNets: Improved Training and Scaling Strategies, Bello et al. 2021
(arXiv 2103.07579), with the numbers of its published experiments: SGD with momentum 0.9, half a
cosine from 0.1 for each 256 images of a batch over 350 epochs after 5 of warm-up, averaged weights,
weight decay 4e-5. Regularisation grows with the network and the image. The paper's rules of
scaling: depth where the training is long enough to overfit, else width; resolution slowly.
"""

from dataclasses import dataclass
from typing import Any

from .loop import TrainSettings

EPOCHS = 350
WARMUP_EPOCHS = 5
RATE = 0.1
RATE_BATCH = 256
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class ResNetRS:
    """One of the published experiments.

    Attributes:
        name: timm model.
        size: side of the training images.
        dropout: before the classifier.
        stochastic_depth: of the last block.
        magnitude: of RandAugment.
    """

    name: str
    size: int
    dropout: float
    stochastic_depth: float
    magnitude: int

    def network_options(self) -> dict[str, float]:
        """What to build the network with: timm.create_model(recipe.name, **these)."""
        return {"drop_rate": self.dropout, "drop_path_rate": self.stochastic_depth}

    def settings(
        self, images: int, batch_size: int, epochs: int = EPOCHS, **others: Any
    ) -> TrainSettings:
        """Settings of `fit` for a data set of so many images; the rest of the recipe stays outside.

        The loss takes LABEL_SMOOTHING, the data set augments by `magnitude`.

        Raises:
            ValueError: epochs no longer than the warm-up, or a batch larger than the data set.
        """
        if epochs <= WARMUP_EPOCHS:
            raise ValueError(f"epochs {epochs}: must be more than {WARMUP_EPOCHS}, the warm-up")
        if not 1 <= batch_size <= images:
            raise ValueError(f"batch_size {batch_size}: must be from 1 to {images}")
        return TrainSettings(
            steps=epochs * images // batch_size,
            warmup_steps=WARMUP_EPOCHS * images // batch_size,
            batch_size=batch_size,
            learning_rate=RATE * batch_size / RATE_BATCH,
            final_learning_rate=0.0,
            sgd_momentum=0.9,
            weight_decay=4e-5,
            ema_decay=0.9999,
            **others,
        )


RESNET_RS = {
    recipe.name: recipe
    for recipe in (
        ResNetRS("resnetrs50", 160, 0.25, 0.0, 10),
        ResNetRS("resnetrs152", 224, 0.25, 0.0, 15),
        ResNetRS("resnetrs200", 256, 0.25, 0.1, 15),
        ResNetRS("resnetrs420", 320, 0.4, 0.1, 15),
    )
}

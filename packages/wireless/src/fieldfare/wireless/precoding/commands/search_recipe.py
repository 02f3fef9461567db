# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search precoding-recipe` searches: how a precoder is trained, and its shape.

Dai et al. 2021, *FBNetV3: Joint Architecture-Recipe Search using Predictor Pretraining* (arXiv
2006.02049): training options are genes beside the network's. Genes that say nothing are silent: the
momentum of plain gradient descent where AdamW trains, weight decay where it does not.
"""

from dataclasses import replace
from pathlib import Path

import torch

from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import TrainSettings

from ...training.run import training_settings
from .search import Shapes, shape

SPACE = Space(
    {
        "layers": (4, 6, 8),
        "width": (4, 10),
        "optimiser": ("sgd", "adamw"),
        "momentum": (0.9, 0.98),
        "weight_decay": (0.0, 1e-4, 1e-2),
        "learning_rate": (2e-3, 4e-3, 8e-3, 16e-3, 32e-3),
        "warmup": (0.0, 0.1, 0.3),
        "clip": (0.0, 1.0),
        "averaging": (0.0, 0.98, 0.995),
        "batch": (16, 32, 64),
    },
    {"momentum": ("optimiser", ("sgd",)), "weight_decay": ("optimiser", ("adamw",))},
)
"""`warmup`: share of the steps. `averaging`: of the weights that are kept, at every step."""

HAND_MADE: dict[str, Value] = {
    "layers": 6,
    "width": 10,
    "optimiser": "adamw",
    "momentum": 0.98,
    "weight_decay": 1e-4,
    "learning_rate": 4e-3,
    "warmup": 0.1,
    "clip": 1.0,
    "averaging": 0.995,
    "batch": 32,
}


class RecipeSearch(Shapes):
    """A `search.tasks.Task`: sum rate after a short training by a recipe.

    Raises:
        InputError: a file of channels that cannot be read or is too short.
    """

    kind = "precoding-recipe"
    space = SPACE
    recipe = tuple(gene for gene in SPACE.genes if gene not in ("layers", "width"))

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.identity = {"steps": self.steps}
        self.presets = {"icgnn_precoder": SPACE.canonical(HAND_MADE)}

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Train by the recipe; measure on other channels."""
        torch.manual_seed(self.seed)
        settings = settings_of(choice, self.steps, self.seed, self.device)
        network = self.train(shape(choice), settings, work, choice.number("batch"))
        told = ", ".join(f"{gene} {choice[gene]}" for gene in self.recipe)
        return self.keep(network, target, "ICGNN precoder found by fieldfare search.", told)


def settings_of(choice: Choice, steps: int, seed: int, device: str) -> TrainSettings:
    """The recipe as the training loop takes it."""
    plain = choice["optimiser"] == "sgd"
    return replace(
        training_settings(steps, float(choice["learning_rate"]), seed, device),
        sgd_momentum=float(choice["momentum"]) if plain else 0.0,
        weight_decay=0.0 if plain else float(choice["weight_decay"]),
        warmup_steps=round(float(choice["warmup"]) * steps),
        clip_norm=float(choice["clip"]),
        ema_decay=float(choice["averaging"]),
    )

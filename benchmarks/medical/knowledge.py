# SPDX-License-Identifier: Apache-2.0
"""Put into a model file what the model knows: features of phantoms of the kind it was trained on,
and the Dice that goes with which, measured on phantoms of the other generator, clean and damaged.

    python benchmarks/medical/knowledge.py reversible_unet_phantom
    python benchmarks/medical/knowledge.py run/model.safetensors --training 64 --validation 60

Prints what it knows; `corrupted.py` measures whether that can be believed.
"""

import argparse

import numpy as np

from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.trust.knowledge import PART
from fieldfare.common.weights import load_model_file, locate, save_with_page
from fieldfare.common.weights.store import load_part
from fieldfare.medical.inference.predict import load_predictor
from fieldfare.medical.networks.models import TASK
from fieldfare.medical.phantoms.generate import SCHEME, make_phantom
from fieldfare.medical.training.knowledge import Case, learn_knowledge

SPACING = 2.0


def drawn(seed: int, number: int, generator: str) -> Case:
    """A phantom of its own random numbers."""
    found = make_phantom(np.random.default_rng((seed, number)), SPACING, generator)
    return Case(found.images, found.labels, found.affine, SCHEME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--training", type=int, default=64)
    parser.add_argument("--validation", type=int, default=60)
    parser.add_argument("--damages", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    set_threads()
    predictor, _ = load_predictor(options.model, device="cpu")
    total = options.training + options.validation * (1 + options.damages)
    done = 0
    with Progress("learn", total, unit="case") as bar:

        def tell() -> None:
            nonlocal done
            done += 1
            bar.update(done)

        knowledge = learn_knowledge(
            predictor,
            (drawn(options.seed, n, "atlas") for n in range(options.training)),
            [drawn(options.seed, n, "growth") for n in range(options.validation)],
            group="phantoms",
            seed=options.seed,
            damages=options.damages,
            tell=tell,
        )
    path = locate(options.model, TASK)
    card, tensors = load_model_file(path)
    guard = load_part(path, GUARD)
    parts = {PART: knowledge.to_tensors()} | ({GUARD: guard} if guard else {})
    save_with_page(path, tensors, card, parts)
    print(knowledge.summary())


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Put a guard into a model file, and what it finds of attacks and faults beside simpler signs.

    python benchmarks/medical/guard.py fit MODEL --cases 40
    python benchmarks/medical/guard.py measure MODEL --cases 12 --rows rows.jsonl

`fit` takes the threshold from clean phantoms of the other generator, of a seed of their own, and
keeps it in the model's file. `measure` takes phantoms of another seed: as they are, attacked by
FGSM and PGD (each image by at most --epsilon of its deviation in the brain, tile by tile, against
the truth), and with each fault of `data.corruptions`. Printed for each: the Dice of the whole
tumour, and the AUROC of telling such cases from clean ones by the guard's score at every rank, by
the mean of the largest class probability over what is taken for tumour, and by what the model knows
(expected Dice; distance). Rows that are done are kept in --rows: the same command again goes on.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from fieldfare.common import console
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.attacks import fgsm, pgd
from fieldfare.common.trust.beyond import Neighbourhood
from fieldfare.common.trust.guard import PART, read_guard
from fieldfare.common.trust.knowledge import PART as KNOWLEDGE
from fieldfare.common.weights import load_model_file, locate, save_with_page
from fieldfare.common.weights.store import load_part
from fieldfare.medical.data.corruptions import CORRUPTIONS
from fieldfare.medical.data.preparation import Prepared, prepare
from fieldfare.medical.data.regions import to_regions
from fieldfare.medical.evaluation.metrics import EmptyPolicy, dice
from fieldfare.medical.inference import guard
from fieldfare.medical.inference.predict import Predictor, load_predictor
from fieldfare.medical.inference.trust import judge, signs_of
from fieldfare.medical.networks.models import TASK
from fieldfare.medical.phantoms.generate import SCHEME, make_phantom
from fieldfare.medical.training.guard import ALPHA, answers_of, learn_guard, observed
from fieldfare.medical.training.knowledge import Case, damaged
from fieldfare.medical.training.losses import region_loss
from fieldfare.medical.volumes.images import to_canonical
from fieldfare.medical.volumes.resampling import resample_axes

SPACING, SIDE = 2.0, 48
FIT_SEED, SEED = 45, 79
ATTACKS = {"fgsm": fgsm, "pgd": partial(pgd, steps=5)}


def drawn(seed: int, number: int) -> Case:
    """A phantom of the other generator."""
    found = make_phantom(np.random.default_rng((seed, number)), SPACING, "growth")
    return Case(found.images, found.labels, found.affine, SCHEME)


def fit(options) -> None:
    predictor, _ = load_predictor(options.model, device="cpu")
    path = locate(options.model, TASK)
    with Progress("fit", options.cases, unit="case") as bar:
        count = iter(range(1, options.cases + 1))
        learnt = learn_guard(
            predictor,
            (drawn(FIT_SEED, number) for number in range(options.cases)),
            tell=lambda: bar.update(next(count)),
        )
    card, tensors = load_model_file(path)
    known = load_part(path, KNOWLEDGE)
    parts = {PART: learnt.to_tensors()} | ({KNOWLEDGE: known} if known else {})
    save_with_page(path, tensors, card, parts)
    print(f"agreement under {learnt.threshold:.4f} is warned of; {options.cases} clean cases")


def truth_of(case: Case, prepared: Prepared) -> np.ndarray:
    """Regions on the network's grid, (3, x, y, z) bool."""
    whole = to_regions(case.labels, case.scheme).astype(np.float32)
    turned = to_canonical(whole, case.affine)[(slice(None), *prepared.box)]
    return resample_axes(turned, prepared.images.shape[1:]) >= 0.5


def attacked(attack, predictor: Predictor, prepared: Prepared, truth, epsilon: float) -> Prepared:
    """The images moved against the network's answer, in the tiles that hold tumour."""
    images = prepared.images.copy()
    low, high = float(images.min()), float(images.max())
    predictor.network.requires_grad_(False)
    for first in np.ndindex(*(-(-side // SIDE) for side in images.shape[1:])):
        inside = tuple(slice(place * SIDE, (place + 1) * SIDE) for place in first)
        wanted = torch.from_numpy(truth[(slice(None), *inside)].copy()).float()[None]
        if not wanted.any():
            continue
        tile = torch.from_numpy(images[(slice(None), *inside)].copy())[None]
        brain = tile != 0

        def loss(moved, brain=brain, wanted=wanted):
            return region_loss(predictor.network(torch.where(brain, moved, 0.0)), wanted, (1, 1, 1))

        moved = torch.where(brain, attack(loss, tile, epsilon, low, high), 0.0)
        images[(slice(None), *inside)] = moved[0].numpy()
    return replace(prepared, images=images)


def scores_of(predictor: Predictor, prepared: Prepared, truth) -> dict[str, object]:
    """Everything that is compared, of one case; large where it should be trusted."""
    features, found = observed(predictor, prepared)
    answers = answers_of(predictor, prepared, (features, found))
    score = {}
    many = len(guard.TURNS)
    measure = Neighbourhood(guard.encode_of([answers]), guard.shifts(), ALPHA, 1)
    agreements = measure.agreements(guard.own())[0].tolist()
    for rank in range(many):
        score[f"guard, rank {rank + 1}"] = agreements[rank]
    inside = found[0] >= 0.5
    inside = inside if inside.any() else (prepared.images != 0).any(axis=0)
    classes = guard.class_scores(found[:, inside].astype(np.float32))
    score["max-softmax"] = float(classes.max(axis=0).mean())
    if predictor.knowledge is not None:
        told = judge(predictor.knowledge, features, signs_of(found, prepared.spacing))
        score |= {"expected Dice": told.expected, "distance": -told.distance}
    right = dice(found[0] >= 0.5, truth[0], empty=EmptyPolicy.BRATS)
    return {"dice": right, "scores": score}


def measure(options) -> None:
    predictor, _ = load_predictor(options.model, device="cpu")
    kept = read_guard(locate(options.model, TASK))
    rows = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    done = {(row["case"], row["kind"]) for row in rows}
    kinds = ["clean", *ATTACKS, *CORRUPTIONS]
    with Progress("measure", options.cases * len(kinds), unit="case") as bar:
        for number in range(options.cases):
            case = None
            for place, kind in enumerate(kinds):
                if (number, kind) not in done:
                    case = case or drawn(SEED, number)
                    rng = np.random.default_rng((SEED, number, place))
                    one = damaged(rng, case, kind) if kind in CORRUPTIONS else case
                    prepared = prepare(one.images, one.affine, SPACING)
                    truth = truth_of(one, prepared)
                    if kind in ATTACKS:
                        prepared = attacked(
                            ATTACKS[kind], predictor, prepared, truth, options.epsilon
                        )
                    rows.append(
                        {"case": number, "kind": kind, **scores_of(predictor, prepared, truth)}
                    )
                    with options.rows.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                bar.update(number * len(kinds) + place + 1)
    print(console.table(table(rows)))
    if kept is not None:
        name = f"guard, rank {kept.rank}"
        for kind in kinds:
            found = np.array([row["scores"][name] for row in rows if row["kind"] == kind])
            print(f"{kind}: {int(kept.flags(found).sum())} of {len(found)} flagged")


def table(rows) -> list[dict[str, object]]:
    """A row a kind: mean Dice, and the AUROC of each score against clean cases."""
    by_kind = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row)
    clean = by_kind["clean"]
    faults = [row for kind in CORRUPTIONS for row in by_kind[kind]]
    found = []
    for kind, these in [*by_kind.items(), ("all faults", faults)]:
        line = {"kind": kind, "cases": len(these)}
        line["Dice"] = round(float(np.mean([row["dice"] for row in these])), 3)
        for name in clean[0]["scores"]:
            one, two = ([row["scores"][name] for row in part] for part in (clean, these))
            line[name] = round(auroc(one, two), 3) if kind != "clean" else "-"
        found.append(line)
    return found


def auroc(high, low) -> float:
    """Chance that one of the first has the larger score than one of the second."""
    ranks = rankdata([*high, *low])[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("fit", "measure"))
    parser.add_argument("model")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--rows", type=Path, default=Path("guard.jsonl"))
    options = parser.parse_args()
    set_threads()
    {"fit": fit, "measure": measure}[options.verb](options)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Of damaged cases, how many are warned of or right all the same; of clean ones, how many alarms.

    python benchmarks/medical/corrupted.py --model reversible_unet_phantom

Cases are phantoms of the other generator, of a seed that nothing was chosen or calibrated on. Each
of --damaged cases has one fault: those of `data.corruptions`, a head with skull and air around the
brain, one image under two names. A case counts as warned of when `med-seg infer` would refuse it,
name a doubt or say that it is unlike what the model knows; as right when the Dice of the whole
tumour is at most 0.1 lower than of the same case undamaged. Prints a row for each fault, the rank
correlation of expected and real Dice over all cases, and what looking costs.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import ndimage
from scipy.stats import spearmanr

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.medical.data.cases import find_case
from fieldfare.medical.data.corruptions import CORRUPTIONS
from fieldfare.medical.data.regions import to_regions
from fieldfare.medical.evaluation.metrics import EmptyPolicy, dice
from fieldfare.medical.inference import run as inference
from fieldfare.medical.inference.predict import load_predictor
from fieldfare.medical.phantoms.generate import Phantom, make_phantom, write_case
from fieldfare.medical.training.knowledge import RIGHT

SPACING = 2.0
SCHEME = "brats2023"
WORSE = 0.1


def unstripped(rng, images):
    """Skull, skin and the noise of air around the brain."""
    brain = (images != 0).any(axis=0)
    away = ndimage.distance_transform_edt(~brain) * SPACING
    result = images.copy()
    for image, whole in zip(images, result, strict=True):
        typical = float(np.median(image[image != 0]))
        noise = np.abs(rng.normal(0, 0.03 * typical, image.shape)) + 1
        head = np.where(away < 6, rng.uniform(0.1, 0.5), rng.uniform(0.6, 1.5)) * typical
        head *= 1 + 0.2 * rng.standard_normal(image.shape)
        whole[...] = np.where(brain, image, np.where(away < 14, np.abs(head) + 1, noise))
    return result.astype(np.float32)


def doubled(rng, images):
    """One image under two names."""
    result = images.copy()
    one, two = rng.permutation(len(images))[:2]
    result[one] = images[two]
    return result


FAULTS = {**CORRUPTIONS, "unstripped": unstripped, "doubled": doubled}


def answer(folder: Path, case: Phantom, predictor):
    """Dice of WT, whether a user is warned and by what, expected Dice."""
    write_case(folder / "P1", case)
    settings = inference.InferSettings(labels=SCHEME)
    try:
        job = inference.open_case(find_case(folder / "P1"), settings, predictor)
    except InputError:
        return 0.0, "refused", None
    plan = inference.plan(job, settings, predictor)
    result = inference.segment(job, settings, predictor, plan)
    whole = to_regions(result.labels, SCHEME)[0]
    score = dice(whole, to_regions(case.labels, SCHEME)[0], empty=EmptyPolicy.BRATS)
    warned = "doubt" if job.notes else ""
    if not warned and result.judgement and result.judgement.alarm:
        warned = "unlike"
    return score, warned, result.judgement.expected if result.judgement else None


def damaged(rng, case: Phantom, fault: str) -> Phantom:
    images = FAULTS[fault](rng, case.images)
    labels = case.labels
    if images.shape[1:] != labels.shape:
        factors = [new / old for new, old in zip(images.shape[1:], labels.shape, strict=True)]
        labels = ndimage.zoom(labels, factors, order=0)
    return Phantom(images, labels, case.affine, case.kind)


def read_rows(path: Path | None) -> dict[tuple[str, int, int], tuple[float, str, float | None]]:
    """What an earlier run kept: fault, number and case to `answer`."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {tuple(key): tuple(found) for key, found in rows}


def keep_row(path: Path | None, key, found) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps((key, found)) + "\n")


def cost(predictor) -> float:
    """Seconds of prediction with looking over those without, the least of five each."""
    case = make_phantom(np.random.default_rng(0), SPACING, "growth")
    with TemporaryDirectory() as scratch:
        write_case(Path(scratch) / "P1", case)
        settings = inference.InferSettings()
        job = inference.open_case(find_case(Path(scratch) / "P1"), settings, predictor)
    plan = inference.plan(job, settings, predictor)
    known, least = predictor.knowledge, {}
    for _ in range(5):
        for knowledge in (None, known):
            predictor.knowledge = knowledge
            began = time.process_time()
            inference.predict_together(job, predictor, plan)
            taken = time.process_time() - began
            least[knowledge is None] = min(taken, least.get(knowledge is None, np.inf))
    return least[False] / least[True]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="reversible_unet_phantom")
    parser.add_argument("--clean", type=int, default=50)
    parser.add_argument("--damaged", type=int, default=200)
    parser.add_argument("--seed", type=int, default=78)
    parser.add_argument("--rows", type=Path, help="Keeps what is done; the same again goes on.")
    options = parser.parse_args()
    set_threads()
    predictor, _ = load_predictor(options.model, device="cpu")
    kinds = list(FAULTS)
    done = read_rows(options.rows)
    wanted = [("clean", number, number) for number in range(options.clean)]
    wanted += [
        (kinds[(number + number // options.clean) % len(kinds)], number, number % options.clean)
        for number in range(options.damaged)
    ]
    with Progress("cases", len(wanted), unit="case") as bar:
        last, case = -1, None
        for count, key in enumerate(sorted(wanted, key=lambda key: key[2]), 1):
            fault, number, which = key
            if key not in done:
                if which != last:
                    drawn = np.random.default_rng((options.seed, which))
                    last, case = which, make_phantom(drawn, SPACING, "growth")
                one = case
                if fault != "clean":
                    rng = np.random.default_rng((options.seed, number, 1))
                    one = damaged(rng, case, fault)
                with TemporaryDirectory() as scratch:
                    done[key] = answer(Path(scratch), one, predictor)
                keep_row(options.rows, key, done[key])
            bar.update(count)
    clean = [done[key][0] for key in wanted[: options.clean]]
    wrong = [score < RIGHT for score in clean]
    alarms = [
        f"clean case {number}: {done[key][1]}, Dice {clean[number]:.2f}"
        for number, key in enumerate(wanted[: options.clean])
        if done[key][1]
    ]
    rows: dict[str, list] = {}
    for key in wanted[options.clean :]:
        fault, _, which = key
        score, warned, _ = done[key]
        right = score >= clean[which] - WORSE
        rows.setdefault(fault, []).append((warned, right, score))
    said = [(done[key][2], done[key][0]) for key in wanted if done[key][2] is not None]
    expected, real = zip(*said, strict=True) if said else ((), ())
    table = []
    for fault, found in sorted(rows.items()):
        ways = [warned for warned, _, _ in found]
        table.append(
            {
                "fault": fault,
                "cases": len(found),
                "refused": ways.count("refused"),
                "doubt named": ways.count("doubt"),
                "unlike": ways.count("unlike"),
                "right all the same": sum(right and not warned for warned, right, _ in found),
                "wrong in silence": sum(not right and not warned for warned, right, _ in found),
            }
        )
    print(console.table(table))
    missed = sum(row["wrong in silence"] for row in table)
    print(f"warned of or right: {1 - missed / max(1, options.damaged):.1%} of {options.damaged}")
    warned = [bool(done[key][1]) for key in wanted[: options.clean]]
    false = sum(one and not bad for one, bad in zip(warned, wrong, strict=True))
    caught = sum(one and bad for one, bad in zip(warned, wrong, strict=True))
    print(
        f"clean cases: {false} alarms of {wrong.count(False)} that are answered rightly (Dice "
        f"{RIGHT} or more), {caught} of {wrong.count(True)} others; mean Dice {np.mean(clean):.3f}"
    )
    print("".join(f"{alarm}\n" for alarm in alarms), end="")
    if expected:
        print(f"rank correlation of expected and real Dice: {spearmanr(expected, real)[0]:.3f}")
        print(f"processor time with looking over without: {cost(predictor):.3f}")


if __name__ == "__main__":
    main()

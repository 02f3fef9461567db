# SPDX-License-Identifier: Apache-2.0
"""Scores lesion by lesion, so that a large lesion cannot hide that small ones were missed.

A lesion is a 26-connected component of a region. Two ways of pairing them are in use, and both
are here: `LESION_DEFINITIONS` has a line for each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize, sparse
from scipy.sparse import csgraph

from .metrics import EmptyPolicy, HausdorffDefinition, Scores, joint_box, of_empty, score

LesionDefinition = Literal["brats2023", "one_to_one"]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Compare = Callable[[Mask, Mask], Scores]

LESION_DEFINITIONS = {
    "lesions:brats2023": (
        "26-connected components; truth components joined where their dilations (18 neighbours, "
        "`dilation` times: 3 for gliomas) meet; each truth lesion against all predicted components "
        "that touch its dilation; lesions of at most `least_mm3` (50 for gliomas) left out; each "
        "predicted component that touches none counts as a lesion with Dice 0 and HD95 374 mm, as "
        "does a missed lesion; mean over all"
    ),
    "lesions:one_to_one": (
        "26-connected components; predicted and truth components paired one to one for the "
        "largest sum of Dice, at least 1e-6 each; mean over the pairs only (sq_* of BraTS 2026); "
        "missed and false lesions show in the counts and in F1"
    ),
}

BRATS2023_PENALTY_MM = 374.0
"""HD95 of a missed or a false lesion by the rules of 2023 (the newer scoring has 373)."""

LEAST_DICE = 1e-6
"""Dice from which two components may be a pair, as in the scoring of BraTS 2026."""

_NEIGHBOURS_26 = ndimage.generate_binary_structure(3, 3)
_NEIGHBOURS_18 = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class Lesion:
    """One true lesion and what was predicted of it."""

    volume_mm3: float
    found: bool
    scores: Scores


@dataclass(frozen=True)
class LesionScores:
    """One region of one case, lesion by lesion.

    Attributes:
        mean: Dice, HD95 in mm and NSD, averaged as the definition says.
        found: true lesions with a partner.
        missed: true lesions without.
        false_positives: predicted components without a partner.
        lesions: the true lesions that count, in the order of their first voxel.
    """

    definition: LesionDefinition
    mean: Scores
    found: int
    missed: int
    false_positives: int
    lesions: tuple[Lesion, ...]

    @property
    def f1(self) -> float:
        """Detection: 2 found / (2 found + missed + false), NaN without any lesion."""
        total = 2 * self.found + self.missed + self.false_positives
        return 2 * self.found / total if total else np.nan


def label_lesions(mask: ArrayLike) -> tuple[Labels, int]:
    """Number the 26-connected components of a mask.

    Args:
        mask: (X, Y, Z) bool.

    Returns:
        (X, Y, Z) int32, 0 for background and 1 .. N, and N.
    """
    labels, count = ndimage.label(np.asarray(mask, dtype=bool), structure=_NEIGHBOURS_26)
    return labels.astype(np.int32, copy=False), int(count)


def score_lesions(
    predicted: ArrayLike,
    truth: ArrayLike,
    spacing: Sequence[float],
    *,
    definition: LesionDefinition = "brats2023",
    hd: HausdorffDefinition = "max",
    tolerance_mm: float = 1.0,
    empty: EmptyPolicy = EmptyPolicy.NAN,
    dilation: int = 3,
    least_mm3: float = 50.0,
) -> LesionScores:
    """Compare the lesions of one region.

    Args:
        predicted: (X, Y, Z) bool.
        truth: the same shape.
        spacing: size of a voxel along each axis, mm.
        definition: how lesions are paired, see `LESION_DEFINITIONS`.
        hd: which HD95 each lesion is scored with. The script of 2023 weights surface elements by
            area, which neither of the two does: expect differences of about a voxel. The scoring
            of 2026 is "pooled"; its published sample has the spacing of anisotropic grids in
            reverse order, and differs there from this.
        tolerance_mm: of NSD. NSD is no part of the rules of 2023: it is averaged here as Dice is.
            The scoring of 2026 has an NSD of its own, a few hundredths from this one.
        empty: the mean where no lesion counts on either side; with "one_to_one" also where no pair
            is left, which is scored as one empty mask is.
        dilation: of "brats2023", in voxels: 3 for gliomas, children and sub-Saharan Africa, 1 for
            meningiomas and metastases.
        least_mm3: of "brats2023"; lesions of at most this volume do not count: 50, for metastases
            2. They still claim the predicted components that touch them.

    Raises:
        ValueError: shapes that differ, a bad spacing, an unknown definition.

    Source: the BraTS 2023 announcement of lesion-wise metrics (Synapse syn51156910) and the
    segmentation challenge's published scoring package (BraTS 2026); for sq_* and one-to-one
    pairing, Kirillov et al. 2019 (arXiv 1801.00868).
    """
    if definition not in ("brats2023", "one_to_one"):
        raise ValueError(f"lesions are scored by brats2023 or one_to_one, not {definition!r}")
    found, wanted = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    if found.shape != wanted.shape:
        raise ValueError(f"masks of shapes {found.shape} and {wanted.shape} cannot be compared")
    box = joint_box(found, wanted, margin=dilation)
    found, wanted = found[box], wanted[box]

    def compare(ours: Mask, theirs: Mask) -> Scores:
        return score(ours, theirs, spacing, hd=hd, tolerance_mm=tolerance_mm)

    voxel_mm3 = float(np.prod([float(size) for size in spacing]))
    if definition == "brats2023":
        return _brats2023(found, wanted, compare, voxel_mm3, empty, dilation, least_mm3)
    return _one_to_one(found, wanted, compare, voxel_mm3, empty)


def _brats2023(
    found: Mask,
    wanted: Mask,
    compare: Compare,
    voxel_mm3: float,
    empty: EmptyPolicy,
    dilation: int,
    least_mm3: float,
) -> LesionScores:
    predicted, count = label_lesions(found)
    near = wanted
    if dilation:
        near = ndimage.binary_dilation(wanted, structure=_NEIGHBOURS_18, iterations=dilation)
    # A component of the dilated truth is the dilation of exactly the true voxels inside it.
    reach, _ = label_lesions(near)
    claimed: set[int] = set()
    places, partner_places = _places(reach), _places(predicted)
    lesions = []
    for number, place in enumerate(places, 1):
        group = reach[place] == number
        volume = np.count_nonzero(group & wanted[place]) * voxel_mm3
        partners = np.setdiff1d(predicted[place][group], [0])
        claimed.update(partners.tolist())
        if volume <= least_mm3:
            continue
        scores = Scores(0.0, BRATS2023_PENALTY_MM, 0.0)
        if partners.size:
            box = _around([place, *(partner_places[index - 1] for index in partners)])
            lesion = (reach[box] == number) & wanted[box]
            scores = compare(np.isin(predicted[box], partners), lesion)
        lesions.append(Lesion(volume, bool(partners.size), scores))
    false = count - len(claimed)
    hits = sum(lesion.found for lesion in lesions)
    rows = [lesion.scores for lesion in lesions]
    rows += [Scores(0.0, BRATS2023_PENALTY_MM, 0.0)] * false
    mean = Scores(*np.mean(rows, axis=0).tolist()) if rows else of_empty(empty, both=True)
    return LesionScores("brats2023", mean, hits, len(lesions) - hits, false, tuple(lesions))


def _one_to_one(
    found: Mask, wanted: Mask, compare: Compare, voxel_mm3: float, empty: EmptyPolicy
) -> LesionScores:
    predicted, n_predicted = label_lesions(found)
    true, n_true = label_lesions(wanted)
    pairs = _best_pairs(true, n_true, predicted, n_predicted)
    places, partner_places = _places(true), _places(predicted)
    lesions = []
    for number, place in enumerate(places, 1):
        partner = pairs.get(number)
        scores = Scores(0.0, np.nan, 0.0)
        if partner is not None:
            box = _around([place, partner_places[partner - 1]])
            scores = compare(predicted[box] == partner, true[box] == number)
        volume = np.count_nonzero(true[place] == number) * voxel_mm3
        lesions.append(Lesion(volume, partner is not None, scores))
    rows = [lesion.scores for lesion in lesions if lesion.found]
    if rows:
        mean = Scores(*np.mean(rows, axis=0).tolist())
    else:
        mean = of_empty(empty, both=not (n_true or n_predicted))
    return LesionScores(
        "one_to_one", mean, len(rows), n_true - len(rows), n_predicted - len(rows), tuple(lesions)
    )


def _places(labels: Labels) -> list[tuple[slice, ...]]:
    """The box of each component, from number 1 on."""
    return ndimage.find_objects(labels) if labels.size else []


def _around(places: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box that holds all of some boxes."""
    axes = zip(*places, strict=True)
    return tuple(slice(min(p.start for p in axis), max(p.stop for p in axis)) for axis in axes)


def _best_pairs(true: Labels, n_true: int, predicted: Labels, n_predicted: int) -> dict[int, int]:
    """The partner of each true component, for the largest sum of Dice over all pairs.

    Only components that touch can be partners. Those connected by touching are few, and a table is
    made for each such group: one of all would have n_true x n_predicted entries.
    """
    both = (true > 0) & (predicted > 0)
    touching = true[both].astype(np.int64) * (n_predicted + 1) + predicted[both]
    codes, overlap = np.unique(touching, return_counts=True)
    ours, theirs = codes // (n_predicted + 1), codes % (n_predicted + 1)
    true_sizes = np.bincount(true.ravel(), minlength=n_true + 1)
    predicted_sizes = np.bincount(predicted.ravel(), minlength=n_predicted + 1)
    dice = 2 * overlap / (true_sizes[ours] + predicted_sizes[theirs])
    side = n_true + n_predicted + 2
    graph = sparse.coo_array((np.ones(len(codes)), (ours, n_true + 1 + theirs)), shape=(side, side))
    _, group = csgraph.connected_components(graph, directed=False)
    order = np.argsort(group[ours], kind="stable")
    starts = np.flatnonzero(np.diff(group[ours][order], prepend=-1))
    pairs = {}
    for edges in np.split(order, starts[1:]):
        rows, row = np.unique(ours[edges], return_inverse=True)
        columns, column = np.unique(theirs[edges], return_inverse=True)
        table = np.zeros((len(rows), len(columns)))
        table[row, column] = dice[edges]
        for i, j in zip(*optimize.linear_sum_assignment(table, maximize=True), strict=True):
            if table[i, j] >= LEAST_DICE:
                pairs[int(rows[i])] = int(columns[j])
    return pairs

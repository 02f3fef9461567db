# SPDX-License-Identifier: Apache-2.0
"""How data sets and programs name the images of a case, in one table."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ..volumes.formats import ending_of

MODALITIES = ("t1", "t1ce", "t2", "flair")
"""T1, T1 with contrast agent, T2 and T2-FLAIR: the order of channels everywhere."""

NAMES = {
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1gad", "t1post", "t1wce", "ct1"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "fl", "t2flair"),
}
"""The last word of a name, in small letters: BraTS to 2022 (ID_t1ce) and from 2023 on (ID-t1c),
BIDS (sub-01_ce-gadolinium_T1w), UPENN-GBM and FeTS (ID_T1GD), UCSF-PDGM (ID_T1c), LUMIERE (CT1)
and CaPTk (FL_to_SRI_brain)."""

MODALITY_OF = {word: modality for modality, words in NAMES.items() for word in words}

NUMBERS = {f"{number:04d}": modality for number, modality in enumerate(MODALITIES)}
"""ID_0000 ... ID_0003 as nnU-Net's own conversions of BraTS have them."""

LONGEST_JSON = 2**24
"""Bytes of a dataset.json that is read; it lists every case."""

LABELS = ("seg", "segm", "tumor_segmentation")
"""The last words of BraTS', UPENN-GBM's and UCSF-PDGM's label files."""

# Words behind the modality, what a program did to the image: of several images of one modality the
# first in this order is meant. Stripped brains come first (CaPTk's T1_to_SRI_brain beside
# T1_to_SRI, LUMIERE's T1_r2s_bet_reg), UCSF-PDGM's T1_bias after its T1.
_TREATMENTS = (
    r"(_to_sri|_r2s)?_(brain|bet_reg|bet|skull_strip|skullstripped|stripped)",
    "",
    r"_bias",
    r"_to_sri",
)
_WORDS = sorted((*MODALITY_OF, *NUMBERS, *LABELS), key=len, reverse=True)
_PATTERN = re.compile(
    rf"(?P<case>.*?)(?:^|[-_. ])(?P<word>{'|'.join(_WORDS)})"
    rf"(?P<treatment>{'|'.join(filter(None, _TREATMENTS))})?",
    re.IGNORECASE | re.DOTALL,
)
# BIDS says by an entity that contrast agent was given; entities belong to the image, not the case.
_CONTRAST = re.compile(r"_(ce-[a-z0-9]+|acq-(ce|gd|gad|post)[a-z0-9]*)", re.IGNORECASE)
_ENTITY = re.compile(r"_(acq|rec|run|echo|space|desc|res|part)-[a-z0-9]+", re.IGNORECASE)
_BRAIN = re.compile(r"[-_]brain$", re.IGNORECASE)  # FeTS: ID_brain_t1


def numbers_of(folder: Path) -> dict[str, str] | None:
    """What nnU-Net's dataset.json, in a folder or the one above, says of ID_0000 and so on.

    Both of its forms are read, `channel_names` and the older `modality`.

    Returns:
        Number to modality; None without such a file, or where a name in it is no modality's.
    """
    for place in (folder, folder.resolve().parent):
        path = place / "dataset.json"
        try:
            if not path.is_file() or path.stat().st_size > LONGEST_JSON:
                continue
            told = json.loads(path.read_text(encoding="utf-8"))
            channels = told.get("channel_names") or told["modality"]
            found = {
                f"{int(number):04d}": MODALITY_OF[str(name).strip().lower()]
                for number, name in channels.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if found and len(set(found.values())) == len(found):
            return found
    return None


def parse(path: Path, numbers: Mapping[str, str] = NUMBERS) -> tuple[str, str, int]:
    """What a file's or folder's name says.

    Args:
        numbers: what nnU-Net's numbers mean.

    Returns:
        Name of the case, which may be empty; the modality, `seg` for labels, or empty where neither
        is named; a rank: of several images of one modality the lowest is meant.
    """
    stem = path.name[: len(path.name) - len(ending_of(path))]
    match = _PATTERN.fullmatch(stem)
    if match is None:
        return stem, "", 0
    case, word, treatment = match["case"], match["word"].lower(), match["treatment"] or ""
    if word in LABELS:
        return (stem, "", 0) if treatment else (case, LABELS[0], 0)
    modality = numbers.get(word, "") if word in NUMBERS else MODALITY_OF[word]
    if modality == "t1" and _CONTRAST.search(case):
        modality = "t1ce"
    if case.lower().startswith("sub-"):
        case = _ENTITY.sub("", _CONTRAST.sub("", case))
    ranks = (re.fullmatch(pattern, treatment, re.IGNORECASE) for pattern in _TREATMENTS)
    rank = next(number for number, found in enumerate(ranks) if found)
    return _BRAIN.sub("", case), modality, rank

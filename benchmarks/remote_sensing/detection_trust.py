# SPDX-License-Identifier: Apache-2.0
"""Is what a tree detector says of its own answers true? Expected beside real F1, and warnings.

    python benchmarks/remote_sensing/detection_trust.py TABLE --data "$FIELDFARE_DATA" \\
        [--model NAME] [--split test] [--every 20]

Squares of 512 pixels of the scenes of a split of TABLE (see `detection_trees.py tables`), as they
are and spoilt in known ways: real F1, the expected one, and how many are warned of; the rank
correlation of the two; and of how many there is a warning, or none is needed (F1 at most LOSS below
that of the scenes as they are). Then files of other places, sensors and pixel sizes: how many are
warned of. There are no trees on record, so a missing warning is not always wrong there.
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.knowledge import Judgement
from fieldfare.remote_sensing.detection.data.table import read_table
from fieldfare.remote_sensing.detection.inference import run as inference
from fieldfare.remote_sensing.detection.inference.predict import Predictor, load_predictor
from fieldfare.remote_sensing.detection.networks.models import load_model
from fieldfare.remote_sensing.detection.options import DEFAULT_MODEL
from fieldfare.remote_sensing.detection.training.knowledge import AS_IT_IS, looked_at, spoilt

REACH, LOSS = 6.0, 0.1
OTHERS = {
    "Kampala, 0.15 m": "buildings/kampala_oam/scene_*.tif",
    "Nairobi, chips": "buildings_more/test/**/*.tif",
    "super-resolution tests": "sr_more/test/**/*.tif",
}


class Judged(Exception):
    """Raised once a scene is judged: its detections are not wanted here."""


def squares(arguments: argparse.Namespace) -> None:
    """The table of ways."""
    predictor = load_predictor(arguments.model, device="cpu", precision="fp32")
    network, knowledge = load_model(arguments.model)[0].eval(), predictor.knowledge
    if knowledge is None:
        raise SystemExit(f"{arguments.model}: does not say what it knows")
    scenes, _ = read_table(arguments.table, bands=3)
    scenes = [scene for scene in scenes if scene.split == arguments.split]
    rows, expected, real, fine = [], [], [], []
    clean = np.nan
    for way, pieces in spoilt(scenes, network.config.gsd, network):
        features, signs, f1 = looked_at(predictor, pieces, REACH / network.config.gsd)
        places, groups = knowledge.rows(features, signs)
        blocks = len(places) // len(pieces)
        judged, found = [], []
        for first in range(0, len(places), blocks):
            here = slice(first, first + blocks)
            if np.isfinite(f1[here]).any():
                pixels = pieces[first // blocks][0].reshape(-1, 3) / 255
                odd = predictor.colours.doubts(pixels) if predictor.colours else []
                judged.append((knowledge.judge(places[here], groups[here]), bool(odd)))
                found.append(float(np.nanmean(f1[here])))
        mean = float(np.mean(found))
        clean = mean if way == AS_IT_IS else clean
        warned = [each.alarm or odd for each, odd in judged]
        right = [w or f >= clean - LOSS for w, f in zip(warned, found, strict=True)]
        rows.append(
            {
                "way": way,
                "squares": len(found),
                "f1": mean,
                "expected": float(np.mean([each.expected for each, _ in judged])),
                "warned": float(np.mean(warned)),
                "warned_or_right": float(np.mean(right)),
            }
        )
        expected += [each.expected for each, _ in judged]
        real += found
        fine += right if way != AS_IT_IS else []
    print(table(rows))
    print(f"rank correlation of expected and real F1: {spearmanr(expected, real)[0]:.3f}")
    print(f"spoilt squares warned of or right: {sum(fine)} of {len(fine)}")


def _judged(
    path: Path, settings: inference.InferSettings, predictor: Predictor
) -> tuple[Judgement, list[str]]:
    """How a file stands to what the model knows, and what is odd about its colours."""
    found: list[Judgement] = []
    odd: list[str] = []

    def judged(judgement: Judgement | None) -> None:
        assert judgement is not None
        found.append(judgement)
        raise Judged

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Judged):
        targets = inference.Targets(Path(folder) / "trees.gpkg")
        inference.infer(path, targets, settings, predictor, looked=odd.extend, judged=judged)
    return found[0], odd


def files(arguments: argparse.Namespace) -> None:
    """The table of other imagery."""
    settings = inference.InferSettings(arguments.model, device="cpu")
    predictor = settings.predictor()
    rows = []
    for name, pattern in OTHERS.items():
        found = [
            _judged(path, settings, predictor)
            for path in sorted(arguments.data.glob(pattern))[:: arguments.every]
        ]
        rows.append(
            {
                "files": name,
                "count": len(found),
                "warned": sum(judgement.alarm or bool(doubts) for judgement, doubts in found),
                "expected": float(np.mean([judgement.expected for judgement, _ in found])),
            }
        )
    print(table(rows))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=20, help="of the files of other imagery")
    arguments = parser.parse_args()
    set_threads()
    squares(arguments)
    files(arguments)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""What is odd about a scene, said before it is predicted: its colours, and with `--guard` how its
answers hold against small changes."""

from dataclasses import asdict, dataclass
from typing import Any

from fieldfare.common.errors import InputError
from fieldfare.common.trust.guard import Verdict

from ...rasters.reading import Scene, ValueRange
from ...scenes.colours import colour_doubts
from .guarding import guard_scene
from .predict import Predictor


@dataclass(frozen=True)
class Impression:
    """Of a scene.

    Attributes:
        doubts: what a user should check.
        verdict: of the guard; None where it was not asked for, or nothing was there to look at.
    """

    doubts: tuple[str, ...]
    verdict: Verdict | None

    def warnings(self) -> list[str]:
        """The sentences that a user should read."""
        found = list(self.doubts)
        if self.verdict is not None and self.verdict.alarm:
            found.append(self.verdict.sentence())
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `--json` holds them."""
        verdict = None if self.verdict is None else asdict(self.verdict)
        return {"doubts": list(self.doubts), "guard": verdict}


def look_over(
    scene: Scene, values: ValueRange, predictor: Predictor, *, guard: bool = False
) -> Impression:
    """Look at squares spread over a scene.

    Raises:
        InputError: the model keeps no guard, or not at this depth.
    """
    verdict = None
    if guard:
        if predictor.guard is None:
            raise InputError(
                "--guard: the model keeps none, or not at this depth; training on a table with "
                "validation scenes gives it one"
            )
        verdict = guard_scene(scene, values, predictor.guard, predictor)
    known = predictor.colours
    return Impression(tuple(colour_doubts(scene, values, known) if known else ()), verdict)

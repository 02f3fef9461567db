# SPDX-License-Identifier: Apache-2.0
"""What an interrupted `fieldfare slim` leaves beside its output, so that the same call goes on."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_text


@dataclass(frozen=True)
class Done:
    """Steps that are over.

    Attributes:
        steps: how many.
        half: whether the network is stored in half precision.
        rows: what was told of them.
    """

    steps: int
    half: bool
    rows: list[dict[str, Any]]


class Notes:
    """Beside OUT.safetensors lie OUT.part.safetensors, the network so far, and OUT.part.json.

    Args:
        output: the model file that is to be.
        identity: what the run depends on; notes of another run are not taken up.
    """

    def __init__(self, output: Path, identity: str) -> None:
        self.output, self._identity = output, identity
        self.part = output.with_name(f"{output.stem}.part.safetensors")
        self._json = self.part.with_suffix(".json")

    def read(self) -> Done | None:
        """What an earlier call of the same run finished; None if there is nothing of it."""
        try:
            values = json.loads(self._json.read_text(encoding="utf-8"))
            if values.pop("identity") != self._identity or not self.part.is_file():
                return None
            return Done(**values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, done: Done) -> None:
        """Note what is finished; the network lies in `part` already."""
        values = {"identity": self._identity} | vars(done)
        write_text(self._json, json.dumps(values))

    def publish(self) -> Path:
        """The part becomes the output, its page goes along, and the notes are removed."""
        page = self.part.with_suffix(".md")
        if page.exists():
            os.replace(page, self.output.with_suffix(".md"))
        os.replace(self.part, self.output)
        self._json.unlink(missing_ok=True)
        return self.output

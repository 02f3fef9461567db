# SPDX-License-Identifier: Apache-2.0
"""Lets the tests import `published_blocks` of the blocks' tests, whatever pytest's import mode."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BLOCKS = str(Path(__file__).parents[1] / "blocks")
if BLOCKS not in sys.path:
    sys.path.insert(0, BLOCKS)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights and inputs in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def examples() -> dict[str, Any]:
    """Worked by hand from the papers' equations."""
    path = Path(__file__).parents[2] / "reference" / "experts_examples" / "examples.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded

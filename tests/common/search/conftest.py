# SPDX-License-Identifier: Apache-2.0
"""Lets the tests import `planted` and `published_search`, whatever pytest's import mode."""

import sys
from pathlib import Path

import pytest
import torch

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights and inputs in every run."""
    torch.manual_seed(0)

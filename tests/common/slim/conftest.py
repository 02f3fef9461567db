# SPDX-License-Identifier: Apache-2.0
"""The same weights and inputs in every run; lets the tests import `tiny_bert`."""

import sys
from pathlib import Path

import pytest
import torch

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)

# SPDX-License-Identifier: Apache-2.0
"""The same weights and inputs in every run."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)

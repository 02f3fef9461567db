# SPDX-License-Identifier: Apache-2.0
"""Towns made in code, shared by the tests of buildings."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests share sample_scenes.py

from sample_scenes import Town, write_town


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """Bright roofs on dark ground, 256 x 256 pixels of 0.15 m in UTM, with labels."""
    return write_town(tmp_path)

# SPDX-License-Identifier: Apache-2.0
"""Lets the tests import `published_blocks`, whatever pytest's import mode."""

import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

# SPDX-License-Identifier: Apache-2.0
"""Many inputs through one function: worker processes, retries, resume, a manifest.

Importing this package loads neither torch nor Ray. See docs/batch.md.
"""

from .driver import run
from .items import Item, MakeWorker, Process, Summary
from .progress import Progress

__all__ = ["Item", "MakeWorker", "Process", "Progress", "Summary", "run"]

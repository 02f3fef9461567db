# SPDX-License-Identifier: Apache-2.0
"""The command line that every command shares: options, errors, exit codes, output.

Nothing heavy is imported here, so that `--help` answers at once.
"""

from .group import TRACEBACK_VARIABLE, CommandGroup
from .options import option, options
from .output import emit, say, table
from .types import FILE, POSITIVE, SHARE, Bytes, Duration, Numbers, Operations, Pairs

__all__ = [
    "FILE",
    "POSITIVE",
    "SHARE",
    "TRACEBACK_VARIABLE",
    "Bytes",
    "CommandGroup",
    "Duration",
    "Numbers",
    "Operations",
    "Pairs",
    "emit",
    "option",
    "options",
    "say",
    "table",
]

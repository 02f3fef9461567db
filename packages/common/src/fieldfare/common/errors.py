# SPDX-License-Identifier: Apache-2.0
"""Errors a user can mend. Commands print them as one line, without a traceback."""


class InputError(ValueError):
    """Bad input or usage: the message names the file or option and says what to do. Exit code 2."""


class RunError(RuntimeError):
    """The work failed for a reason outside the input (disk full, out of memory). Exit code 1."""

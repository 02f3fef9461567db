# SPDX-License-Identifier: Apache-2.0
"""Whether to leave out the note that code is being compiled; here, for it loads nothing."""

quiet = False
"""What a command's --quiet sets."""

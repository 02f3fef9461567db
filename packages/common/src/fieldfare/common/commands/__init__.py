# SPDX-License-Identifier: Apache-2.0
"""What the verbs of all commands do alike; each is imported when it runs."""

# SPDX-License-Identifier: Apache-2.0
"""Cases: finding and reading them, their labels, the table that lists them, patches."""

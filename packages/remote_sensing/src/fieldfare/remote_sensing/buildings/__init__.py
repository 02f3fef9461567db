# SPDX-License-Identifier: Apache-2.0
"""Building footprints from aerial and drone imagery: the command `rs-buildings`."""

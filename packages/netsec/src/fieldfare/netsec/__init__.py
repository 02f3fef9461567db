# SPDX-License-Identifier: Apache-2.0
"""Deep learning on network traffic; empty so far, see the package's README."""

__version__ = "0.4.0"

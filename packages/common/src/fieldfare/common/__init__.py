# SPDX-License-Identifier: Apache-2.0
"""Common core of Fieldfare: what every domain package shares."""

__version__ = "0.5.0"

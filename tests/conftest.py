# SPDX-License-Identifier: Apache-2.0
"""Settings of every test: no test may depend on time."""

from hypothesis import settings

settings.register_profile("fieldfare", deadline=None)
settings.load_profile("fieldfare")

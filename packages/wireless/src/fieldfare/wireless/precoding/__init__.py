# SPDX-License-Identifier: Apache-2.0
"""Linear precoding of the multi-user downlink: closed forms, WMMSE, rates, and the capacity."""

# SPDX-License-Identifier: Apache-2.0
"""The mathematics of a downlink, without networks: rates, precoders, power allocations."""

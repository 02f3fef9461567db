# SPDX-License-Identifier: Apache-2.0
"""Power allocation of the cell-free downlink with maximum-ratio precoding: rates and solvers."""

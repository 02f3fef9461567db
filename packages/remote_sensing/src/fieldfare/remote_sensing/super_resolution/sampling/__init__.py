# SPDX-License-Identifier: Apache-2.0
"""From a network to an image: solvers, and noise that depends on nothing but its place."""

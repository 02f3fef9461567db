# SPDX-License-Identifier: Apache-2.0
"""Search for a network: a space, an evaluator, a strategy, and random search beside it."""

# SPDX-License-Identifier: Apache-2.0
"""One set of weights, many networks: what may vary, how a smaller one is cut from the largest."""

# SPDX-License-Identifier: Apache-2.0
"""From flows to classes with a probability that holds."""

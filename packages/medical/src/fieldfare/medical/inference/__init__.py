# SPDX-License-Identifier: Apache-2.0
"""From a case to labels: plan the memory, predict, write."""

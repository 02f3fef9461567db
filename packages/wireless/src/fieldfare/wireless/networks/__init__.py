# SPDX-License-Identifier: Apache-2.0
"""Information-carrying graph neural networks (ICGNN) for precoding and power allocation."""

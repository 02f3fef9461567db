# SPDX-License-Identifier: Apache-2.0
"""Whether an input is like what a model knows, and how good its answer may be expected to be."""

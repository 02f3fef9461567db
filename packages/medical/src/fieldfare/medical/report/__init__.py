# SPDX-License-Identifier: Apache-2.0
"""The page a person reads: findings, pictures, viewer."""

# SPDX-License-Identifier: Apache-2.0
"""Vector files: reading those that nobody vouches for, moving between CRSs, writing."""

# SPDX-License-Identifier: Apache-2.0
"""What the verbs of rs-detect do with their options; imported when one runs."""

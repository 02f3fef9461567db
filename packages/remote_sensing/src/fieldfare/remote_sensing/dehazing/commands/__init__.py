# SPDX-License-Identifier: Apache-2.0
"""What the verbs of rs-dehaze do with their options; imported when one runs."""

# SPDX-License-Identifier: Apache-2.0
"""What the verbs of net-traffic do."""

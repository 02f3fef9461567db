# SPDX-License-Identifier: Apache-2.0
"""Networks that find buildings, their fast and exported forms."""

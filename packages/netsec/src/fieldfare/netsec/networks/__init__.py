# SPDX-License-Identifier: Apache-2.0
"""NetMamba and netFound behind one interface."""

# SPDX-License-Identifier: Apache-2.0
"""The command wl-channel: draws and describes channels."""

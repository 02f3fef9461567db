# SPDX-License-Identifier: Apache-2.0
"""Channels, drawn from models or read from files."""

# SPDX-License-Identifier: Apache-2.0
"""Tables, pictures and times of a comparison, for precoders and power alike."""

# SPDX-License-Identifier: Apache-2.0
"""Options of net-traffic that several verbs share; nothing heavy is imported here."""

from typing import Any

import click

_CAPTURE = (
    click.option("--interface", metavar="NAME", help="Listen to this interface (Linux) instead."),
    click.option("--follow", is_flag=True, help="Wait for the last capture to grow; Ctrl-C ends."),
    click.option(
        "--idle-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=120.0,
        show_default=True,
        help="Seconds without a packet after which a flow is over.",
    ),
    click.option(
        "--active-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=1800.0,
        show_default=True,
        help="Seconds after which a flow is cut.",
    ),
    click.option("--directed", is_flag=True, help="A flow for each direction, not one for both."),
    click.option(
        "--decapsulate", is_flag=True, help="Look into IP-in-IP, 6in4, GRE and VXLAN tunnels."
    ),
    click.option(
        "--max-flows",
        type=click.IntRange(min=1),
        default=1_000_000,
        show_default=True,
        help="Held at a time; beyond, those longest without a packet are cut and counted.",
    ),
)


def capture_options(command: Any) -> Any:
    """Where packets come from, and what makes a flow."""
    for option in reversed(_CAPTURE):
        command = option(command)
    return command

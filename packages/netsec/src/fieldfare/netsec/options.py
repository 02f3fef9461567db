# SPDX-License-Identifier: Apache-2.0
"""Options of net-traffic that several verbs share; nothing heavy is imported here."""

from typing import Any

import click

from fieldfare.common import console

PRESETS = (
    "netmamba/small", "netmamba/base", "netfound/tiny", "netfound/small", "netfound/base",
    "netfound/large",
)  # fmt: skip

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
        type=click.IntRange(1, 1 << 30),
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


show_option = click.option(
    "--show",
    multiple=True,
    type=click.Choice(["ports", "ttl", "addresses", "numbers", "checksums"]),
    help="Let the model see this field, if it was trained with and without; repeatable.",
)

first_packets_option = click.option(
    "--first-packets",
    type=console.Numbers(int),
    help="Also score after the first 1,2,... packets of each flow.",
)


def training_options(steps: int, batch: int, learning_rate: float) -> Any:
    """Of `train` and `pretrain`."""
    found = (
        click.option(
            "--preset",
            type=click.Choice(PRESETS),
            show_default=PRESETS[0],
            help="The fresh network.",
        ),
        click.option(
            "--hide",
            default="addresses,ttl,numbers,checksums",
            show_default=True,
            help="Fields that the network never sees; also ports, or none.",
        ),
        click.option(
            "--optional",
            default="ports",
            show_default=True,
            help="Fields shown in one batch of four only, to be shown or hidden later; or none.",
        ),
        click.option(
            "--steps", type=click.IntRange(min=1), default=steps, show_default=True, help="Steps."
        ),
        click.option(
            "--batch",
            type=click.IntRange(min=1),
            default=batch,
            show_default=True,
            help="Flows a step.",
        ),
        click.option(
            "--learning-rate",
            type=float,
            default=learning_rate,
            show_default=True,
            help="Peak of the cosine.",
        ),
    )

    def decorate(command: Any) -> Any:
        for option in reversed(found):
            command = option(command)
        return command

    return decorate

# SPDX-License-Identifier: Apache-2.0
"""The command fieldfare: what concerns all packages. Heavy imports are made inside the verbs."""

import click

from . import console
from .commands.front_options import FrontOptions


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-common")
def main() -> None:
    """Compare the packaged models of all installed Fieldfare packages."""


@main.command()
@click.argument("task", required=False)
@console.options(FrontOptions)
def front(task: str | None, options: FrontOptions) -> None:
    """Quality, time, memory and size of every variant of TASK; without TASK, list the tasks.

    A variant is a packaged model with the options it is run with. Those that another one beats are
    marked (grey in the picture). `infer --variant NAME` takes one, `infer --within TIME` the best
    that is fast enough.
    """
    from .commands import front as work

    work.front(task, options)

# SPDX-License-Identifier: Apache-2.0
"""The command fieldfare: what concerns all packages. Heavy imports are made inside the verbs."""

from pathlib import Path

import click

from . import console
from .commands.elastic_options import ElasticOptions
from .commands.front_options import FrontOptions
from .commands.latency_options import LatencyOptions
from .commands.search_options import SearchOptions
from .commands.slim_options import CascadeOptions, SlimOptions
from .commands.stitch_options import StitchOptions


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-common")
def main() -> None:
    """Compare, search, slim and join networks of all installed Fieldfare packages."""


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


@main.command()
@click.argument("task", required=False)
@click.argument("data", nargs=-1, type=console.FILE)
@console.options(SearchOptions)
def search(task: str | None, data: tuple[Path, ...], options: SearchOptions) -> None:
    """Search for the best network of TASK on this machine and DATA; without TASK, list the tasks.

    Every network is trained for the same short while. Random search of as many networks stands
    beside, and what people chose by hand; the last lines say whether searching was worth it. The
    folder receives front.json, front.csv, front.png, the networks that none beats and the best of
    them as model.safetensors. Run the same command again to go on after a stop.
    """
    from .commands import search as work

    work.search(task, data, options)


@main.command()
@click.argument("task", required=False)
@click.argument("data", nargs=-1, type=console.FILE)
@console.options(ElasticOptions)
def elastic(task: str | None, data: tuple[Path, ...], options: ElasticOptions) -> None:
    """Train networks of many sizes at once, on shared weights; without TASK, list the tasks.

    The folder receives a model file of every size with its card, and TASK.variants.json, which
    `infer --model` takes together with --within, --budget or --variant. Run the same command again
    to go on after a stop.
    """
    from .commands import elastic as work

    work.elastic(task, data, options)


@main.command()
@click.argument("model", metavar="MODEL")
@console.options(SlimOptions)
def slim(model: str, options: SlimOptions) -> None:
    """Make MODEL, a packaged one or a .safetensors file, cheaper without training.

    Cheap transforms are tried in a fixed order; each is kept only if the quality on --data is at
    most --max-loss below MODEL's, and what it gains is printed. OUTPUT is a model file that the
    domain's infer takes. Run the same command again to go on after a stop.
    """
    from .commands import slim as work

    work.slim(model, options)


@main.command()
@click.argument("small", metavar="SMALL")
@click.argument("large", metavar="LARGE")
@console.options(CascadeOptions)
def cascade(small: str, large: str, options: CascadeOptions) -> None:
    """Join two models as one file: LARGE is asked only where SMALL is unsure.

    The share that is passed on is fitted to the split val of --data.
    """
    from .commands import cascade as work

    work.cascade(small, large, options)


@main.command()
@click.argument("small", metavar="SMALL")
@click.argument("large", metavar="LARGE")
@console.options(StitchOptions)
def stitch(small: str, large: str, options: StitchOptions) -> None:
    """Join two models of one family into networks between them: blocks of SMALL, then of LARGE.

    A linear layer stands where blocks of one follow those of the other; all such layers are trained
    together on --data, taught by LARGE too. The folder receives a model file of every network,
    those of SMALL and LARGE as they are, front.png and TASK.variants.json, which `infer --model`
    takes together with --within, --budget or --variant. Run the same command again to go on after
    a stop.
    """
    from .commands import stitch as work

    work.stitch(small, large, options)


@main.command()
@click.argument("model", required=False)
@console.options(LatencyOptions)
def latency(model: str | None, options: LatencyOptions) -> None:
    """What each layer of MODEL takes on this machine; without MODEL, what has been measured.

    Layers are measured once and kept in the user's cache folder. Refuses to measure while more is
    running than there are cores.
    """
    from .commands import latency as work

    work.latency(model, options)

# SPDX-License-Identifier: Apache-2.0
"""The options of net-traffic's verbs; nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console import shared

DEFAULT_MODEL = "traffic_pair"
ARCHITECTURES = ("netmamba", "netfound")
PRESETS = (
    "netmamba/small", "netmamba/base", "netfound/tiny", "netfound/small", "netfound/base",
    "netfound/large",
)  # fmt: skip
EXPERTS = (
    "learned", "random", "lookup", "recurrent", "stochastic", "switch", "union", "moe++",
)  # fmt: skip
"""Kinds of `fieldfare.common.experts.recipes` that need nothing but training."""
FORMATS = ("parquet", "csv", "jsonl")


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """Where packets come from, and what makes a flow."""

    interface: str | None = console.option(
        metavar="NAME", help="Listen to this interface (Linux) instead."
    )
    follow: bool = console.option(
        is_flag=True, help="Wait for the last capture to grow; Ctrl-C ends."
    )
    idle_timeout: float = console.option(
        type=console.POSITIVE,
        default=120.0,
        help="Seconds without a packet after which a flow is over.",
    )
    active_timeout: float = console.option(
        type=console.POSITIVE, default=1800.0, help="Seconds after which a flow is cut."
    )
    directed: bool = console.option(
        is_flag=True, help="A flow for each direction, not one for both."
    )
    decapsulate: bool = console.option(
        is_flag=True,
        help="Look into tunnels: IP-in-IP, 6in4, GRE, ERSPAN, PPTP, VXLAN, Geneve, GTP-U, L2TP, "
        "Teredo, TZSP, MPLS.",
    )
    packet_filter: str = console.option(
        "--filter",
        metavar="EXPRESSION",
        default="",
        help="Count only packets that fit, as in tcpdump: 'tcp port 443 and net 10.0.0.0/8'.",
    )
    statistics: bool = console.option(
        is_flag=True,
        help="Also write least, mean, greatest and standard deviation of packet sizes and gaps.",
    )
    packet_sizes: int = console.option(
        type=click.IntRange(0, 1000),
        default=0,
        metavar="N",
        help="Also write the sizes of the first N packets, those backward below 0.",
    )
    vlan_key: bool = console.option(
        is_flag=True, help="Flows of different VLANs are different flows."
    )
    max_flows: int = console.option(
        type=click.IntRange(1, 1 << 30),
        default=1_000_000,
        help="Held at a time; beyond, those longest without a packet are cut and counted.",
    )


@dataclass(frozen=True, kw_only=True)
class FlowsOptions(CaptureOptions, shared.ManyOptions):
    """Of `flows`."""

    format: str = console.option(
        type=click.Choice(FORMATS),
        default="parquet",
        help="Of the tables in a folder; that of one table follows the name of OUTPUT.",
    )


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """What the model is let see."""

    show: tuple[str, ...] = console.option(
        multiple=True,
        type=click.Choice(["ports", "ttl", "addresses", "numbers", "checksums"]),
        help="Let the model see this field, if it was trained with and without; repeatable.",
    )


@dataclass(frozen=True, kw_only=True)
class DialOptions:
    """How much of a network with experts runs."""

    experts_per_token: int | None = console.option(
        type=click.IntRange(min=1),
        metavar="K",
        help="Experts that each token runs, of a model that has some: fewer cost less. "
        "[default: as the model says]",
    )


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """What the sites that are known add to a model."""

    adapters: Path | None = console.option(
        type=console.FILE,
        metavar="DIR",
        help="Use the adapters of `train --adapter-rank` in this folder, where the flows are like "
        "those of their sites.",
    )


@dataclass(frozen=True, kw_only=True)
class InferOptions(
    AdapterOptions,
    DialOptions,
    ShowOptions,
    FlowsOptions,
    shared.InferOptions,
    shared.GuardOptions,
    shared.BudgetOptions,
):
    """Of `infer`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    report: Path | None = console.option(
        type=console.FILE, help="Also write a page on the flows: *.html."
    )
    unknown_below: float | None = console.option(
        type=console.SHARE,
        help="Label flows of less familiarity `unknown`; about this share of known flows is lost. "
        "0: none. [default: as the model says]",
    )
    first_packets: tuple[int] | None = console.option(
        type=console.Numbers(int, 1),
        help="Look at no more than this many packets of a flow. [default: as in training]",
    )
    early: int | None = console.option(
        type=click.IntRange(1, 1 << 16),
        metavar="K",
        help="Write a flow at its K-th packet, with its counts until then, and not at its end.",
    )
    embeddings: bool = console.option(
        is_flag=True, help="Also write the model's vector of each flow."
    )
    weights_memory: int | None = console.option(
        type=console.Bytes(),
        help="Keep netFound's weights in their file and no more than this of them in memory: "
        "512MB. Slower, the same result.",
    )
    explain: bool = console.option(
        is_flag=True,
        help="Also tell which experts each flow's tokens ran, of a model that has some; its "
        "network runs twice.",
    )


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What is trained, and what it never sees."""

    preset: str | None = console.option(
        type=click.Choice(PRESETS), show_default=PRESETS[0], help="The fresh network."
    )
    hide: str = console.option(
        default="addresses,ttl,numbers,checksums",
        help="Fields that the network never sees; also ports, or none.",
    )
    optional: str = console.option(
        default="ports",
        help="Fields shown in one batch of four only, to be shown or hidden later; or none.",
    )


@dataclass(frozen=True, kw_only=True)
class LabelsOptions:
    """How LABELS.csv is read."""

    captures: Path | None = console.option(
        type=console.FILE, help="Folder of the captures. [default: of LABELS.csv]"
    )
    label_timezone: str | None = console.option(
        metavar="NAME",
        help="Zone of times in LABELS.csv that name none, such as America/Halifax for CIC-IDS.",
    )


@dataclass(frozen=True, kw_only=True)
class ExpertsOptions:
    """Which experts the feed-forward layers become."""

    experts: str | None = console.option(
        type=click.Choice(EXPERTS),
        help="Make experts of the feed-forward layers, those of --init or fresh ones.",
    )
    expert_count: int = console.option(
        type=click.IntRange(min=1), default=8, help="Experts of each layer."
    )
    experts_per_token: int | None = console.option(
        type=click.IntRange(min=1),
        metavar="K",
        help="Experts that each token runs. [default: half; of lookup, stochastic and switch 1]",
    )
    expert_start: str = console.option(
        type=click.Choice(["split", "copies", "fresh"]),
        default="split",
        help="Share the hidden units out (all experts together are the layer), give each expert a "
        "copy of all, or begin with new weights.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ExpertsOptions, NetworkOptions, LabelsOptions, shared.TrainingOptions):
    """Of `train`."""

    init: str | None = console.option(
        metavar="NAME|PATH",
        help="Begin with the encoder of this model, in its size, instead of a preset.",
    )
    steps: int = console.option(type=click.IntRange(min=1), default=3000, help="Steps.")
    batch: int = console.option(type=click.IntRange(min=1), default=32, help="Flows a step.")
    learning_rate: float = console.option(
        type=console.POSITIVE, default=2e-3, help="Peak of the cosine."
    )
    shots: int | None = console.option(
        type=click.IntRange(min=1), help="Train on so many flows a class. [default: all]"
    )
    per_capture: int | None = console.option(
        type=click.IntRange(min=1),
        help="Train on so many flows of a class from each capture. [default: all]",
    )
    teacher: str | None = console.option(
        metavar="NAME|PATH",
        help="Follow this model's probabilities too: both networks of a pair into one.",
    )
    variations: int = console.option(
        type=click.IntRange(min=0),
        default=0,
        help="Copies of each flow as other recordings might hold it: first packets missing, later "
        "parts, other TCP options, the other version of IP, short snap lengths.",
    )
    robust: int = console.option(
        type=click.IntRange(min=0),
        default=0,
        metavar="K",
        help="Train on the worst of K disguises of each flow (other TTL, IP id, timing, padding); "
        "costs K + 1 further looks at it.",
    )
    adapter_rank: int = console.option(
        type=click.IntRange(min=0),
        default=0,
        metavar="R",
        help="Train no network but an adapter of this rank of the model of --init, which stays as "
        "it is, for the site of these captures; see `infer --adapters`. 0: none.",
    )
    contrast: float | None = console.option(
        type=click.FloatRange(min=0),
        metavar="W",
        help="Also train on the first 1 to 8 packets of each flow alone, and draw what the network "
        "makes of them to what it makes of the whole flow, with this weight. [default: neither]",
    )
    balance: float = console.option(
        type=console.SHARE,
        default=0.5,
        help="Weight of classes in the loss: 0 by their flows, 1 all alike.",
    )
    smoothing: float = console.option(
        type=click.FloatRange(0, 0.9), default=0.05, help="Of the labels."
    )


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(NetworkOptions, shared.RunOptions):
    """Of `pretrain`."""

    batch: int = console.option(type=click.IntRange(min=1), default=64, help="Flows a step.")
    learning_rate: float = console.option(
        type=console.POSITIVE, default=2e-3, help="Peak of the cosine."
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(AdapterOptions, DialOptions, ShowOptions, LabelsOptions, shared.ReportOptions):
    """Of `eval`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    split: str = console.option(default="test", help="Which rows to score.")
    trees: bool = console.option(is_flag=True, help="Also fit and score 400 extra-trees.")
    neighbours: bool = console.option(
        is_flag=True,
        help="Also score what the first network's vectors say by their neighbours in the split "
        "train, without training.",
    )
    evasions: int = console.option(
        type=click.IntRange(min=0),
        default=0,
        metavar="K",
        help="Also score against senders who may change TTL, IP id, timing and padding of their "
        "packets, and keep the best of K disguises of each flow.",
    )
    first_packets: tuple[int, ...] | None = console.option(
        type=console.Numbers(int),
        help="Also score after the first 1,2,... packets of each flow.",
    )


@dataclass(frozen=True, kw_only=True)
class CompressOptions(shared.WriteOptions, shared.TalkOptions, LabelsOptions):
    """Of `compress`."""

    captures_for: tuple[Path, ...] = console.option(
        "--for",
        multiple=True,
        type=console.FILE,
        metavar="CAPTURE|FOLDER",
        help="Traffic that the model is for, by which is chosen what stays; repeatable.",
    )
    fit_to: Path | None = console.option(
        type=console.FILE,
        metavar="LABELS.csv",
        help="Fit calibration, familiarity and guard anew to these (see `train`); without --for "
        "the split train is what the model is for.",
    )
    expert_count: int | None = console.option(
        type=click.IntRange(min=1),
        metavar="N",
        help="Merge experts, most used first, until N of each layer are left on average.",
    )
    macs: float | None = console.option(
        type=click.FloatRange(0, 1, min_open=True),
        help="Share of the feed-forward operations to keep: of experts by fewer of them per token, "
        "of a dense network by its most active hidden units.",
    )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(shared.BenchOptions):
    """Of `bench`."""

    model: str = shared.model_option(DEFAULT_MODEL)
    batch: int = console.option(type=click.IntRange(min=1), default=256, help="Flows a call.")
    repeats: int = console.option(type=click.IntRange(min=2), default=10, help="Timed calls.")


@dataclass(frozen=True, kw_only=True)
class ExportOptions(shared.ExportOptions):
    """Of `export`."""

    model: str = shared.model_option(DEFAULT_MODEL)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(shared.ConvertOptions):
    """Of `convert`."""

    architecture: str = console.option(
        type=click.Choice(ARCHITECTURES), required=True, help="What CHECKPOINT is of."
    )
    classes: str | None = console.option(
        help="Names of a fine-tuned checkpoint's classes, in order: A,B,..."
    )

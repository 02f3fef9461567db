# SPDX-License-Identifier: Apache-2.0
"""Every command speaks alike: same verbs, same options, same exit codes, a quick `--help`."""

import dataclasses
import importlib
import subprocess
import sys
import tomllib
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import pytest

from fieldfare.common.console.shared import InferOptions

ROOT = Path(__file__).resolve().parents[2]
COMMANDS: dict[str, str] = {}
for pyproject in sorted(ROOT.glob("packages/*/pyproject.toml")):
    declared = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    COMMANDS |= declared.get("scripts", {})

VERBS = {"infer", "train", "eval", "models", "bench", "export", "convert"}
FLAGS = {"--overwrite", "--quiet", "--json", "--dry-run", "--resume"}
SHORT = {"-o": "--output"}
CHOICES = {
    "--device": ["auto", "cpu", "cuda"],
    "--precision": ["auto", "fp32", "bf16"],
    "--engine": ["local", "ray"],
}
NO_INFER = {"wl-channel", "fieldfare"}
# Of every `infer`: one input or many, on this machine or on several.
ONE_DOOR = {"--engine", "--workers", "--gpus-per-worker", "--retries", "--resume"}
ONE_DOOR |= {"--output", "--overwrite", "--dry-run", "--quiet", "--json", "--device"}
# Each costs more than the rest of a command's start together.
HEAVY = [
    *("torch", "torchvision", "timm", "lightning_fabric", "ray", "onnx", "onnxruntime"),
    *("matplotlib", "scipy", "skimage", "PIL", "rasterio", "scapy", "nibabel", "torch_geometric"),
    *("albumentations", "cv2", "geopandas", "pyarrow", "pyproj", "segmentation_models_pytorch"),
    "shapely",
]


def group(command: str) -> click.Group:
    """The click group behind a command: its entry point, or the group beside it."""
    module_name, _, attribute = COMMANDS[command].partition(":")
    module = importlib.import_module(module_name)
    candidates = [getattr(module, attribute), *vars(module).values()]
    return next(item for item in candidates if isinstance(item, click.Group))


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as its installed script does; the last line of stdout lists heavy modules."""
    module, _, attribute = COMMANDS[command].partition(":")
    code = f"""
import sys
from {module} import {attribute} as main
sys.argv[0] = {command!r}
try:
    main()
finally:
    print("heavy:", *sorted(set({HEAVY}) & set(sys.modules)))
"""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def options(command: str) -> Iterator[tuple[str, click.Option]]:
    """Every option of every verb, with where it stands."""
    for verb, item in group(command).commands.items():
        for parameter in item.params:
            if isinstance(parameter, click.Option):
                yield f"{command} {verb}", parameter


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_verb_and_loads_nothing_heavy(command: str) -> None:
    answer = run(command, "--help")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[-1] == "heavy:"
    verbs = set(group(command).commands)
    assert verbs
    assert {line.split()[0] for line in lines if line.startswith("  ") and line.split()} >= verbs


@pytest.mark.parametrize("command", COMMANDS)
def test_verbs_are_the_common_ones(command: str) -> None:
    own = {"wl-channel": {"gen", "info"}, "net-traffic": {"flows", "pretrain", "compress"}}
    own |= {"med-seg": {"relabel", "phantom"}, "rs-buildings": {"adapt"}}
    own |= {"fieldfare": {"front", "search", "slim", "elastic", "cascade", "stitch", "latency"}}
    assert set(group(command).commands) <= VERBS | own.get(command, set())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_verb_and_option_says_what_it_does(command: str) -> None:
    silent = [verb for verb, item in group(command).commands.items() if not item.help]
    silent += [f"{where} {option.opts[0]}" for where, option in options(command) if not option.help]
    assert not silent


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_option_and_verb_are_usage_errors(command: str) -> None:
    for arguments in (["--no-such-option"], ["no-such-verb"], ["infer", "--no-such-option"]):
        answer = run(command, *arguments)
        assert answer.returncode == 2, arguments
        assert "Traceback" not in answer.stderr
        assert answer.stderr.strip()


def test_shared_options_have_their_agreed_form() -> None:
    bad = []
    for command in COMMANDS:
        for where, option in options(command):
            names = set(option.opts)
            if names & FLAGS and not option.is_flag:
                bad.append(f"{where}: {option.opts} must be a flag")
            for name in names & set(CHOICES):
                given = list(getattr(option.type, "choices", []))
                if given != CHOICES[name]:
                    bad.append(f"{where}: {name} must be one of {CHOICES[name]}, not {given}")
            for name in names & set(SHORT):
                if SHORT[name] not in names:
                    bad.append(f"{where}: {name} must be short for {SHORT[name]}")
    assert not bad


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_INFER])
def test_every_infer_takes_many_inputs_in_the_same_way(command: str) -> None:
    verb = group(command).commands["infer"]
    names = {name for option in verb.params for name in option.opts}
    assert not ONE_DOOR - names
    assert issubclass(verb.callback.options_class, InferOptions)
    (argument,) = (item for item in verb.params if isinstance(item, click.Argument))
    assert argument.nargs == -1


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of an annotated type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, kind) for kind in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if origin is Literal:
        return value in inner
    return hint is Any or type(value) is (type(None) if hint is None else hint)


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_of_the_types_that_the_options_promise(command: str) -> None:
    wrong = []
    for verb, item in group(command).commands.items():
        kind = item.callback.options_class
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            default = field.default
            if default is not dataclasses.MISSING and not fits(default, hints[field.name]):
                wrong.append(f"{verb} {field.name}: {default!r} is no {hints[field.name]}")
    assert not wrong


def test_an_option_has_one_meaning_everywhere() -> None:
    meanings = defaultdict(set)
    for command in COMMANDS:
        for _, option in options(command):
            for name in option.opts:
                kind = "flag" if option.is_flag else type(option.type).__name__
                meanings[name].add((tuple(sorted(option.opts)), kind, option.nargs))
    assert not {name: seen for name, seen in meanings.items() if len(seen) > 1}

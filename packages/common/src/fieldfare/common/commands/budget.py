# SPDX-License-Identifier: Apache-2.0
"""`infer --within`, `--max-memory`, `--budget`, `--variant`: which variant, and what was true."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .. import console
from ..budget.choose import Expected, Limits, choose, format_bytes
from ..budget.process import held_bytes, peak_bytes, running_seconds
from ..budget.variants import SUFFIX, Variant, Variants, read_variants, variants_of
from ..console.shared import BudgetOptions, ManyOptions
from ..errors import InputError
from ..progress import format_seconds
from ..runtime import set_threads

Input = TypeVar("Input")
Options = TypeVar("Options", bound=BudgetOptions)


@dataclass(frozen=True)
class Plan:
    """What was asked for and what was chosen.

    Attributes:
        expected: None where the variant was named by the user.
    """

    limits: Limits
    variant: Variant
    metric: str
    expected: Expected | None = None

    def outcome(self) -> dict[str, Any]:
        """What was true in the end, for JSON and manifests."""
        told: dict[str, Any] = {
            "variant": self.variant.name,
            "expected_quality": self.variant.quality,
        }
        if self.expected:
            if self.expected.seconds is not None:
                told |= {"expected_seconds": round(self.expected.seconds, 2)}
            told |= {"expected_memory": self.expected.memory}
        return told | {"run_seconds": round(running_seconds(), 2), "run_memory": peak_bytes()}

    def sentence(self) -> str:
        """What was true in the end, for people."""
        text = f"{self.variant.name}: took {format_seconds(running_seconds())}"
        if self.limits.seconds:
            text += f" of {format_seconds(self.limits.seconds)}"
        text += f" and {format_bytes(peak_bytes())}"
        if self.limits.memory:
            text += f" of {format_bytes(self.limits.memory)}"
        return text


def asked(options: BudgetOptions) -> bool:
    """Whether the user limits the run or names a variant."""
    return bool(limits_of(options)) or options.variant is not None


def limits_of(options: BudgetOptions) -> Limits:
    """The limits among the options."""
    return Limits(options.within, options.max_memory, options.budget)


@dataclass(frozen=True)
class Needs(Generic[Input]):
    """What a run with a variant's options takes for one input.

    Attributes:
        memory: bytes that it adds, besides those of one unit in the network; counted, not measured.
        seconds: of all of it, from a part that is done on trial.
        at_most: an upper bound of that from a smaller part, where there is one.
    """

    memory: Callable[[Input], int]
    seconds: Callable[[Input], float]
    at_most: Callable[[Input], float] = lambda _: math.inf


def within(
    task: str,
    options: Options,
    inputs: Sequence[Input],
    needs: Callable[[Options], Needs[Input]],
    *,
    workers: int | None = None,
) -> tuple[Options, Plan | None]:
    """Take the named or the best fitting variant for all inputs together; say which on stderr.

    Options that differ from their defaults stay as they are: only variants with just these values
    are looked at.

    Args:
        needs: of the options of a variant; not called where the user names it.
        workers: processes that share the inputs, each as long in starting as this one was; None:
            all is done in this one.

    Returns:
        The options with the variant's settings, and the plan; without a limit or a name the options
        as they are, and None.

    Raises:
        InputError: nothing fits, or there is no such variant, or limits beside a named variant.
    """
    own = _own_variants(options)
    if not asked(options):
        if own is not None:
            raise InputError(
                f"--model {own}: holds several models; say which by --variant NAME, or by "
                "--within, --max-memory or --budget"
            )
        return options, None
    starting = running_seconds() if workers else 0.0
    limits = limits_of(options)
    if own is None:
        found = variants_of(task)
    else:
        found, options = _variants_in(own, task), _without_model(options)
    if options.variant is not None:
        if limits:
            raise InputError("--variant: takes no --within, --max-memory or --budget beside it")
        variant = found.named(options.variant)
        if kept := _kept(options, variant):
            raise InputError(f"--variant {variant.name}: is not with {kept}; leave one out")
        return settled(options, variant), Plan(limits, variant, found.metric)
    abreast = min(workers or 1, len(inputs))
    if workers:
        set_threads(max(1, (os.cpu_count() or 1) // workers))  # as each of them will have
    held = held_bytes()

    @functools.lru_cache(maxsize=1)  # what it holds, a network say, is not held of all
    def needed(name: str) -> Needs[Input]:
        return needs(settled(options, found.named(name)))

    def memory(variant: Variant) -> int:
        each = _of_each(needed(variant.name).memory, inputs, many=bool(workers))
        return round(held + (variant.peak_bytes or 0) + max(each)) * abreast

    def together(asked_of: Callable[[Input], float]) -> float:
        each = _of_each(asked_of, inputs, many=bool(workers))
        return starting + max(sum(each) / abreast, *each, 0.0)

    chosen = choose(
        _open(found, options),
        limits,
        memory_of=memory,
        seconds_of=lambda variant: together(needed(variant.name).seconds),
        at_most_of=lambda variant: together(needed(variant.name).at_most),
        spent=running_seconds,
    )
    console.say(chosen.sentence(found.metric))
    set_threads()
    planned = Plan(limits, chosen.variant, found.metric, chosen.expected)
    return settled(options, chosen.variant), planned


def _own_variants(options: BudgetOptions) -> Path | None:
    """The file of variants that `--model` names, as `fieldfare elastic` writes it."""
    given = getattr(options, "model", None)
    return Path(given) if isinstance(given, str) and given.endswith(SUFFIX) else None


def _variants_in(path: Path, task: str) -> Variants:
    """Of a user's file; models that it names lie beside it.

    Raises:
        InputError: no such file, or one of another task.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    found = read_variants(path)
    if found.task != task:
        raise InputError(f"{path}: holds variants of {found.task}, not of {task}")

    def placed(variant: Variant) -> Variant:
        model = str(path.parent / str(variant.settings["model"]))
        return dataclasses.replace(variant, settings={**variant.settings, "model": model})

    return dataclasses.replace(found, variants=tuple(map(placed, found.variants)))


def _without_model(options: Options) -> Options:
    default = next(field.default for field in dataclasses.fields(options) if field.name == "model")
    changed: dict[str, Any] = {"model": default}
    return dataclasses.replace(options, **changed)


def _of_each(
    asked_of: Callable[[Input], float], inputs: Sequence[Input], *, many: bool
) -> list[float]:
    """What is asked of every input; of many, those that cannot be read are told of in their turn.

    Raises:
        InputError: none of them can.
    """
    found = []
    for number, one in enumerate(inputs, start=1):
        try:
            found.append(asked_of(one))
        except InputError:
            if not many or (number == len(inputs) and not found):
                raise
    return found


def outcome(planned: Plan | None) -> dict[str, Any]:
    """What was true in the end, for JSON; nothing where nothing was chosen."""
    return planned.outcome() if planned else {}


def record(planned: Plan | None) -> dict[str, str]:
    """What a manifest holds among the settings; nothing where nothing was chosen."""
    return {"variant": planned.variant.name} if planned else {}


def tell(planned: Plan | None, options: ManyOptions) -> None:
    """Say what was true in the end."""
    if planned and not options.dry_run:
        console.say(planned.sentence(), quiet=options.quiet)


def _open(found: Variants, options: BudgetOptions) -> list[Variant]:
    """The variants that are with what the user fixed."""
    given = getattr(options, "model", None)
    left = [
        variant
        for variant in found.variants
        if not _kept(options, variant)
        and not (variant.only_named and variant.settings.get("model") != given)
    ]
    if not left:
        kept = dict.fromkeys(_kept(options, variant) for variant in found.variants)
        raise InputError(
            f"{min(kept, key=len)}: nothing was measured with that; leave it out, or --within, "
            "--max-memory and --budget"
        )
    return left


def _kept(options: BudgetOptions, variant: Variant) -> str:
    """What the user gave that the variant would change, as options; empty where nothing is."""
    told = []
    for name, value in _settings(options, variant).items():
        field = next(field for field in dataclasses.fields(options) if field.name == name)
        given = getattr(options, name)
        if given not in (field.default, value):
            text = ",".join(map(str, given)) if isinstance(given, tuple) else given
            told.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(told)


def settled(options: Options, variant: Variant) -> Options:
    """The options with a variant's settings in them.

    Raises:
        InputError: the variant was made for options that this command does not have.
    """
    return dataclasses.replace(options, **_settings(options, variant))


def _settings(options: BudgetOptions, variant: Variant) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(options)}
    if unknown := set(variant.settings) - known:
        raise InputError(f"--variant {variant.name}: sets {', '.join(sorted(unknown))}, not known")
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in variant.settings.items()
    }

# SPDX-License-Identifier: Apache-2.0
"""`infer --within`, `--max-memory`, `--budget`, `--variant`: which variant, and what was true."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .. import console
from ..budget.choose import Expected, Limits, choose, format_bytes
from ..budget.process import held_bytes, peak_bytes, running_seconds
from ..budget.variants import Variant, Variants, variants_of
from ..console.shared import BudgetOptions
from ..errors import InputError
from ..progress import format_seconds

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


def plan(
    task: str,
    options: Options,
    *,
    memory_of: Callable[[Options], int],
    seconds_of: Callable[[Options], float],
    model: str,
    default_model: str,
) -> tuple[Options, Plan]:
    """Take the named or the best fitting variant; say which on stderr.

    Args:
        memory_of: bytes that a run with the options of a variant adds, besides those of one unit in
            its network; counted, not measured. Neither is called where a variant is named.
        seconds_of: of the rest of the run, from one unit that is measured.
        model: that was asked for; another than the default leaves only its own variants.

    Returns:
        The options with the variant's settings, and the plan.

    Raises:
        InputError: nothing fits, or there is no such variant, or limits beside a named variant.
    """
    limits, found = limits_of(options), variants_of(task)
    if options.variant is not None:
        if limits:
            raise InputError("--variant: takes no --within, --max-memory or --budget beside it")
        variant = found.named(options.variant)
        return settled(options, variant), Plan(limits, variant, found.metric)
    held = held_bytes()

    def memory(variant: Variant) -> int:
        return held + (variant.peak_bytes or 0) + memory_of(settled(options, variant))

    chosen = choose(
        _of_model(found, model, default_model),
        limits,
        memory_of=memory,
        seconds_of=lambda variant: seconds_of(settled(options, variant)),
        spent=running_seconds,
    )
    console.say(chosen.sentence(found.metric))
    planned = Plan(limits, chosen.variant, found.metric, chosen.expected)
    return settled(options, chosen.variant), planned


def _of_model(found: Variants, model: str, default_model: str) -> list[Variant]:
    if model == default_model:
        return list(found.variants)
    own = [variant for variant in found.variants if variant.settings.get("model") == model]
    if not own:
        raise InputError(
            f"--model {model}: nothing was measured of its variants; leave out --within, "
            "--max-memory and --budget, or take a packaged model"
        )
    return own


def settled(options: Options, variant: Variant) -> Options:
    """The options with a variant's settings in them, and its name for the record.

    Raises:
        InputError: the variant was made for options that this command does not have.
    """
    known = {field.name for field in dataclasses.fields(options)}
    if unknown := set(variant.settings) - known:
        raise InputError(f"--variant {variant.name}: sets {', '.join(sorted(unknown))}, not known")
    return dataclasses.replace(options, **variant.settings)

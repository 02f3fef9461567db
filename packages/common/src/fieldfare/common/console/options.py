# SPDX-License-Identifier: Apache-2.0
"""A verb's options as one frozen dataclass: declared once, parsed by click, seen by a type checker.

    @dataclass(frozen=True, kw_only=True)
    class InferOptions(shared.InferOptions):
        tile: int = option(type=click.IntRange(min=8), default=64, help="Side in pixels.")

    @main.command()
    @console.options(InferOptions)
    def infer(options: InferOptions) -> None: ...

Field names are option names (`--tile`). In Python the class is built with keywords, and what is
left out has the default of the command line. Nothing heavy is imported here.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

_CLICK = "click"

Options = TypeVar("Options")
Verb = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class _Declared:
    """How click shall parse a field."""

    names: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def required(self) -> bool:
        return bool(self.settings.get("required"))

    def option(self, field: str) -> click.Option:
        names = self.names if self._long() else (*self.names, f"--{field.replace('_', '-')}")
        return click.Option([*names, field], **self.settings)

    def _long(self) -> bool:
        return any(name.startswith("--") for name in self.names)


def option(*names: str, **settings: Any) -> Any:
    """A field of an options class.

    Args:
        names: `-o`, `--output`, `--resume/--no-resume`; `--` and the field's name where no long
            one is given.
        settings: of `click.Option`: type, default, help, is_flag, multiple, required ... Defaults
            are shown in `--help` but for flags.

    Returns:
        A `dataclasses.field` with the default of the command line, converted to the option's type;
        without one where it is required.
    """
    default = settings.get("default")
    if default is not None and not settings.get("is_flag"):
        settings = {"show_default": True, **settings}
    declared = _Declared(names, settings)
    metadata = {_CLICK: declared}
    if declared.required:
        return dataclasses.field(metadata=metadata)
    parsed = declared.option("value")
    value = parsed.type_cast_value(click.Context(click.Command("")), default)
    if settings.get("is_flag") and value is None:
        value = False
    return dataclasses.field(default=value, metadata=metadata)


def options(kind: type[Options]) -> Callable[[Verb], Verb]:
    """Parse the fields of an options class and hand the verb one of them, as `options`.

    Required ones come first in `--help`, then the class's own, then those of its bases.
    """
    declared = {field.name: field.metadata[_CLICK] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]

    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def call(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in declared}
            verb(**values, options=kind(**chosen))

        listed = sorted(_own_first(kind), key=lambda name: not declared[name].required)
        parameters = [declared[name].option(name) for name in listed]
        known: list[click.Parameter] = getattr(call, "__click_params__", [])
        call.__click_params__ = [*known, *reversed(parameters)]  # type: ignore[attr-defined]
        call.options_class = kind  # type: ignore[attr-defined]
        return call

    return decorate


def _own_first(kind: type) -> Iterator[str]:
    """Names of the fields: of the class itself, then of its bases."""
    seen: set[str] = set()
    for base in kind.__mro__:
        for name in inspect.get_annotations(base):
            if name not in seen:
                seen.add(name)
                yield name

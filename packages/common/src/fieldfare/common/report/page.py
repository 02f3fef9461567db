# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page: style, pictures and scripts lie in it.

A content security policy in the page forbids the browser to fetch anything and to run any script
but the page's own. All that is put into it is escaped: names come from anybody's files.

A domain's template begins with `{% extends "base.html" %}` and fills the blocks `style`, `body` and
`data`; `macros.html` has tables and the like. See docs/architecture.md.
"""

import base64
import datetime
import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(
    package: str,
    template: str,
    *,
    command: str,
    kind: str,
    title: str,
    about: Sequence[str] = (),
    warnings: Sequence[str] = (),
    footer: str = "",
    scripts: Sequence[str] = (),
    filters: Mapping[str, Callable[..., str]] | None = None,
    **values: Any,
) -> str:
    """A page as text.

    Args:
        package: whose folder `templates` holds the template.
        template: its file name.
        command: that made the page, for instance `med-seg`.
        kind: what the page is, in a few words.
        title: what it is about, for instance a file's name.
        about: phrases below the title; the date of today stands before the last of them.
        warnings: sentences for the box on top.
        footer: a sentence; that the page needs no network is said behind it.
        scripts: JavaScript that the page may run, in this order, at its end.
        filters: further filters of the template.
        values: of the template's own variables.
    """
    loaders = [PackageLoader(package), PackageLoader("fieldfare.common.report")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, **(filters or {})}
    # Such an end inside a script would end it for the browser.
    safe = [script.replace("</script", "<\\/script") for script in scripts]
    return environment.get_template(template).render(
        command=command,
        kind=kind,
        title=title,
        about=about,
        date=datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        warnings=warnings,
        footer=footer,
        scripts=[Markup(script) for script in safe],
        hashes=[_hash(script) for script in safe],
        **values,
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def data_uri(data: bytes, kind: str) -> str:
    """A picture as an address that carries it; kind is `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions of distributions, and Python's."""
    return {**{name: metadata.version(name) for name in distributions}, "python": _python()}


def _python() -> str:
    return platform.python_version()


def shown(value: Any) -> str:
    """A setting in words."""
    if value is None or value == "" or value == [] or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {shown(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    return str(value)

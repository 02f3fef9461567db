# SPDX-License-Identifier: Apache-2.0
"""What `infer` says, or does, about an input that is unlike what the model knows."""

from collections.abc import Sequence

from .. import console
from ..console.shared import TrustOptions
from ..errors import InputError
from ..trust.knowledge import Judgement


def warning(judgement: Judgement | None, name: str, options: TrustOptions) -> str | None:
    """The line to say of an input, or None where there is nothing to say.

    Args:
        judgement: None where the model does not say what it knows.
        name: of the input, as the user wrote it.

    Raises:
        InputError: with `--strict`, instead of the line.
    """
    if judgement is None or not judgement.alarm:
        return None
    line = f"{name}: {judgement.sentence()}"
    if options.strict:
        raise InputError(f"{line}; nothing was written, as --strict was given")
    return line


def tell(doubts: Sequence[str], name: str, options: TrustOptions) -> None:
    """Say what is odd about an input, before anything is written.

    Raises:
        InputError: with `--strict`, instead.
    """
    for line in doubts:
        if options.strict:
            raise InputError(f"{name}: {line}; nothing was written, as --strict was given")
        console.say(f"warning: {name}: {line}")

# SPDX-License-Identifier: Apache-2.0
"""A model in one safetensors file: tensors, and the card in the file's header."""

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from ..files import atomic_path, write_text
from .card import ModelCard

HEADER_KEY = "fieldfare.card"


def save_model_file(
    path: Path,
    tensors: Mapping[str, Tensor],
    card: ModelCard,
    parts: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write tensors and card atomically; tensors that share memory are stored one by one.

    Args:
        parts: what the file holds besides the network: part -> name -> tensor, see `load_part`.
    """
    everything = dict(tensors)
    for part, held in (parts or {}).items():
        everything |= {f"{part}/{name}": tensor for name, tensor in held.items()}
    own = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in everything.items()}
    data = save(own, metadata={HEADER_KEY: card.to_json()})
    with atomic_path(path) as temporary:  # its save_file lets none but the owner read the file
        temporary.write_bytes(data)


def save_with_page(
    path: Path,
    tensors: Mapping[str, Tensor],
    card: ModelCard,
    parts: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Write a model file, and its card as a page beside it: NAME.md; returns the model's path."""
    save_model_file(path, tensors, card, parts)
    write_text(path.with_suffix(".md"), card.to_markdown())
    return path


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of convolutions in half precision, all else as it is: half the bytes to package."""
    return {name: t.half() if t.ndim >= 4 else t for name, t in tensors.items()}


def read_card(path: Path) -> ModelCard:
    """Read the card from a weight file's header, without its tensors.

    Raises:
        InputError: no such file, not a safetensors file, or one without a card.
    """
    return _read(path, lambda name: False)[0]


def load_model_file(path: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """Read card and the network's tensors (on the CPU); raises InputError as `read_card`."""
    return _read(path, lambda name: "/" not in name)


def load_part(path: Path, part: str) -> dict[str, Tensor]:
    """Read what a file holds besides the network under a part's name; empty if nothing.

    Raises InputError as `read_card`.
    """
    prefix = f"{part}/"
    _, tensors = _read(path, lambda name: name.startswith(prefix))
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _read(path: Path, wanted: Callable[[str], bool]) -> tuple[ModelCard, dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
            if text is None:
                raise InputError(f"{path}: holds no model card; use the command's `convert` first")
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names if wanted(name)}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}); published .pth files go through "
            "the command's `convert`"
        ) from None
    try:
        return ModelCard.from_json(text), tensors
    except ValueError as error:
        raise InputError(f"{path}: its model card is unreadable: {error}") from None

# SPDX-License-Identifier: Apache-2.0
"""One file holds tensors and card; a file that does not is named."""

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, load_model_file, read_card, save_model_file
from fieldfare.common.weights.store import HEADER_KEY

CARD = ModelCard("tiny", "doubling", "Doubles numbers.", {"width": 3})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model_file(path, {"weight": torch.arange(600.0)}, CARD)
    return path


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    shared = torch.arange(24.0).reshape(2, 3, 4)
    tensors: dict[str, Tensor] = {
        "plain": shared,
        "same memory": shared,
        "view": shared.transpose(0, 2),
        "expanded": torch.ones(1).expand(3),
        "channels last": torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last),
        "bf16": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
        "whole": torch.tensor(2**40),
        "none": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    path = tmp_path / "tiny.safetensors"
    save_model_file(path, tensors, CARD)
    card, loaded = load_model_file(path)
    assert card == CARD == read_card(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_saved_file_is_readable_by_those_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_model_file(tmp_path / "tiny.safetensors", {"a": torch.ones(1)}, CARD)
    finally:
        os.umask(before)
    assert (tmp_path / "tiny.safetensors").stat().st_mode & 0o777 == 0o644


def test_full_disk_leaves_the_file_before_it(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(path: Path, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_model_file(saved, {"a": torch.ones(1)}, CARD)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_card(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_header_without_card_points_to_convert(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "bare.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata=metadata)
    with pytest.raises(InputError, match=r"bare\.safetensors: holds no model card; .*`convert`"):
        load_model_file(path)


def test_unreadable_card_is_told_from_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={HEADER_KEY: '{"later": 1}'})
    with pytest.raises(InputError, match=r"odd\.safetensors: its model card is unreadable"):
        read_card(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: b"<html>not found</html>",
        lambda data: pickle.dumps({"weight": [1.0]}),
    ],
    ids=["empty", "no header", "half a header", "last byte", "huge header", "web page", "pickle"],
)
def test_damaged_file_is_named(saved: Path, damage: Callable[[bytes], bytes]) -> None:
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(InputError, match=r"tiny\.safetensors: not a readable safetensors file"):
        load_model_file(saved)

# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints: what is taken, what is refused, and what the report says."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fieldfare.common.errors import InputError
from fieldfare.common.weights import fit_state_dict, load_checkpoint

TENSORS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


class Code:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {f"module.{name}": tensor for name, tensor in t.items()},
        lambda t: {"params": t},
        lambda t: {"params": {"a.weight": torch.zeros(1)}, "params_ema": t},
        lambda t: {"state_dict": {f"module.{n}": v for n, v in t.items()}, "epoch": 3},
        lambda t: {"model": t, "optimizer": {"state": {}}},
        lambda t: {"net": t},
    ],
    ids=["plain", "module.", "params", "params_ema first", "state_dict, module.", "model", "net"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_usual_wrappings_are_taken_off(
    tmp_path: Path, wrap: Callable[[Any], Any], legacy: bool
) -> None:
    path = tmp_path / "published.pth"
    torch.save(wrap(TENSORS), path, _use_new_zipfile_serialization=not legacy)
    loaded = load_checkpoint(path)
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


def test_module_is_kept_where_it_is_a_part_of_the_network(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.ones(1), "head": torch.ones(1)}, tmp_path / "p.pth")
    assert load_checkpoint(tmp_path / "p.pth").keys() == {"module.weight", "head"}


def test_safetensors_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in TENSORS.items()}, path)
    assert load_checkpoint(path).keys() == TENSORS.keys()


def test_file_with_code_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    torch.save(TENSORS | {"extra": Code(tmp_path / "made")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth: holds Python objects besides tensors"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "made").exists()


def test_file_with_settings_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"model": TENSORS, "args": argparse.Namespace(lr=1)}, tmp_path / "p.pth")
    with pytest.raises(InputError, match=r"p\.pth: holds Python objects besides tensors"):
        load_checkpoint(tmp_path / "p.pth")


@pytest.mark.parametrize("name", ["p.pth", "p.safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"hello world\n" * 10,
        lambda data: bytes(range(256)),
    ],
    ids=["empty", "half", "text", "noise"],
)
def test_damaged_file_is_named(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(TENSORS, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"{re.escape(name)}: not a readable checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("other", [torch.ones(1), [torch.ones(1)], {"a": 1}, {0: torch.ones(1)}])
def test_anything_but_named_tensors_is_refused(tmp_path: Path, other: Any) -> None:
    torch.save(other, tmp_path / "p.pth")
    with pytest.raises(InputError, match=r"p\.pth: is not a state dict of tensors"):
        load_checkpoint(tmp_path / "p.pth")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.pth: no such file"):
        load_checkpoint(tmp_path / "no.pth")


def test_everything_fits_after_renames_in_turn() -> None:
    published = {"body.0.w": torch.ones(2), "body.1.w": torch.ones(3)}
    expected = {"blocks.0.weight": torch.zeros(2), "blocks.1.weight": torch.zeros(3)}
    fit = fit_state_dict(published, expected, [(r"^body\.", "blocks."), (r"\.w$", ".weight")])
    assert fit.complete
    assert fit.report() == "everything fits"
    fit.require_complete(Path("p.pth"))
    assert list(fit.tensors) == list(expected)
    assert fit.tensors["blocks.1.weight"] is published["body.1.w"]


def test_report_names_what_is_missing_unexpected_and_of_another_shape() -> None:
    published = {"a": torch.ones(2), "b": torch.ones(2, 3), "x": torch.ones(1)}
    expected = {"a": torch.ones(2), "b": torch.ones(3, 2)} | {
        f"m{number}": torch.ones(1) for number in range(5)
    }
    fit = fit_state_dict(published, expected)
    assert not fit.complete
    assert fit.missing == ("m0", "m1", "m2", "m3", "m4")
    assert fit.unexpected == ("x",)
    assert fit.misshapen == {"b": ((2, 3), (3, 2))}
    assert list(fit.tensors) == ["a"]
    assert fit.report() == (
        "5 missing: m0, m1, m2, and 2 more; 1 unexpected: x; 1 shape: b [2, 3] for [3, 2]"
    )
    with pytest.raises(InputError, match=r"p\.pth: does not fit the network: 5 missing: m0"):
        fit.require_complete(Path("p.pth"))


def test_renames_that_lose_a_tensor_are_refused() -> None:
    published = {"a.w": torch.ones(1), "b.w": torch.ones(1)}
    with pytest.raises(ValueError, match=r"two tensors the name w"):
        fit_state_dict(published, {}, [(r"^[ab]\.", "")])

# SPDX-License-Identifier: Apache-2.0
"""The manifest: resume rules, torn lines, other settings, files that are not ours."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from batch_workers import Faulty, read_lines, written
from hypothesis import given
from hypothesis import strategies as st

from fieldfare.common.batch import Item, Summary
from fieldfare.common.batch.manifest import Manifest, input_stamps
from fieldfare.common.batch.temporaries import remove_stale, temporary_paths
from fieldfare.common.batch.worker import Outcome
from fieldfare.common.errors import InputError

Go = Callable[..., Summary]


def open_manifest(
    out: Path, settings: Mapping[str, Any] | None = None, **options: bool
) -> Manifest:
    header = {"run": "test", "settings": settings or {}}
    return Manifest(out, header, **({"resume": True, "overwrite": False} | options))


def three_items(root: Path) -> list[Item]:
    items = []
    for key in ("ä", "b", "c/d"):
        output = root / f"{key[0]}.out"
        output.write_bytes(b"12345")
        items.append(Item(key, (), (output,)))
    return items


@given(cut=st.integers(min_value=0))
def test_a_manifest_cut_anywhere_keeps_its_whole_lines(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        items = three_items(out)
        with open_manifest(out) as manifest:
            for item in items:
                manifest.add(item, (), Outcome(1.0, outputs=((5, "0"),)), attempts=1, worker="w")
        whole = manifest.path.read_bytes()
        cut %= len(whole) + 1
        manifest.path.write_bytes(whole[:cut])
        with open_manifest(out) as manifest:
            done = [manifest.is_done(item, ()) for item in items]
        kept = whole[:cut].count(b"\n") - 1  # the first line is the header
        assert done == [index < kept for index in range(3)]
        assert read_lines(manifest.path)  # whole again, so the next run can read it


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    with open_manifest(tmp_path) as manifest:
        manifest.add_started(three_items(tmp_path)[0])
    text = manifest.path.read_bytes()
    manifest.path.write_bytes(b"{]\n" + text)
    with pytest.raises(InputError, match="line 1 is damaged"):
        open_manifest(tmp_path)
    assert manifest.path.read_bytes() == b"{]\n" + text


def test_changed_settings_are_refused_unless_overwrite(
    go: Go, items: list[Item], faulty: Faulty
) -> None:
    first = go(items[:3], faulty, settings={"steps": 1, "model": "a"})
    before = first.manifest.read_bytes()
    with pytest.raises(InputError, match=r"other settings \(model, steps\).*--overwrite"):
        go(items[:3], faulty, settings={"steps": 2, "model": "b"})
    assert first.manifest.read_bytes() == before
    second = go(items[:3], faulty, settings={"steps": 2, "model": "a"}, overwrite=True)
    assert second.done == 3
    with pytest.raises(InputError, match="other settings"):  # the last run counts
        go(items[:3], faulty, settings={"steps": 1, "model": "a"})
    assert go(items[:3], faulty, settings={"model": "a", "steps": 2}).skipped == 3


def test_no_resume_needs_overwrite_and_does_all_again(
    go: Go, items: list[Item], faulty: Faulty
) -> None:
    assert go(items[:2], faulty, resume=False).done == 2
    with pytest.raises(InputError, match="earlier run"):
        go(items[:2], faulty, resume=False)
    assert go(items[:2], faulty, resume=False, overwrite=True).done == 2
    assert go(items[:2], faulty, overwrite=True).skipped == 2


def test_files_of_others_are_kept_those_of_a_killed_run_replaced(
    go: Go, items: list[Item], faulty: Faulty, expected: dict[str, bytes]
) -> None:
    theirs, ours = items[1], items[2]
    theirs.outputs[0].parent.mkdir(parents=True)
    theirs.outputs[0].write_bytes(b"precious")
    for _ in range(2):  # the second time too
        summary = go(items[:2], faulty)
        assert "--overwrite" in summary.errors[theirs.key]
        assert summary.exit_code == 3
        assert theirs.outputs[0].read_bytes() == b"precious"
    # a driver that dies between the renaming and the line leaves a started line and an output
    with summary.manifest.open("a") as file:
        file.write(json.dumps({"key": ours.key, "status": "started"}) + "\n")
    ours.outputs[0].write_bytes(b"complete, but nobody knows")
    assert go([ours], faulty).exit_code == 0
    assert go([theirs], faulty, overwrite=True).exit_code == 0
    assert written(items[1:3]) == {
        output.name: expected[output.name] for item in (theirs, ours) for output in item.outputs
    }


def test_a_missing_input_fails_without_a_start(go: Go, items: list[Item], faulty: Faulty) -> None:
    items[0].inputs[0].unlink()
    summary = go(items[:2], faulty)
    assert summary.errors == {"00": f"{items[0].inputs[0]}: No such file or directory"}
    assert summary.exit_code == 3
    assert faulty.starts("00") == 0


def test_names_and_outputs_must_differ(go: Go, items: list[Item], faulty: Faulty) -> None:
    with pytest.raises(InputError, match="two items are named 00"):
        go([items[0], items[1], items[0]], faulty)
    twin = Item("twin", (), items[0].outputs)
    with pytest.raises(InputError, match="written by both 00 and twin"):
        go([items[0], twin], faulty)


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with open_manifest(tmp_path), pytest.raises(InputError, match="another run"):
        open_manifest(tmp_path)
    open_manifest(tmp_path).__exit__(None, None, None)


def test_an_unwritable_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"manifest\.jsonl: cannot be written"):
        open_manifest(tmp_path / "file" / "out")


def test_the_header_names_the_run(go: Go, items: list[Item], faulty: Faulty) -> None:
    header, started, done = read_lines(go(items[:1], faulty, workers=2).manifest)
    assert header["settings"] == {"model": "tiny"}
    assert header["engine"] == "local"
    assert header["workers"] == 2
    assert started == {"key": "00", "status": "started", "run": header["run"]}
    assert done["run"] == header["run"]
    assert done["inputs"] == [
        {"size": size, "mtime_ns": changed} for size, changed in input_stamps(items[0])
    ]


def test_stale_folders_go_and_those_of_a_living_run_stay(tmp_path: Path) -> None:
    item = Item("a", (), (tmp_path / "a.nii.gz",))
    own = temporary_paths(item)[0].parent
    host, pid = own.name.removeprefix(".fieldfare.").rsplit(".", 2)[:2]
    init, elsewhere = (tmp_path / f".fieldfare.{name}.1.3" for name in (host, "other.host"))
    stranger = tmp_path / ".fieldfare.notes"
    for folder in (own, init, elsewhere, stranger):
        folder.mkdir()
        (folder / "a.nii.gz").write_text("half")
    remove_stale(tmp_path)
    assert pid.isdigit()
    assert sorted(tmp_path.iterdir()) == sorted([init, stranger])
    remove_stale(tmp_path / "missing")

# SPDX-License-Identifier: Apache-2.0
"""No half-written file is ever seen under its final name."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path, check_output, temporary_sibling, write_text


def test_file_appears_whole_and_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.tif"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".tif"  # writers choose the format by it
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("written", [False, True])
def test_error_leaves_the_target_and_no_temporary_file(
    tmp_path: Path, error: type[BaseException], written: bool
) -> None:
    target = tmp_path / "a.tif"
    target.write_text("old")

    def write() -> None:
        with atomic_path(str(target)) as temporary:
            if written:
                temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.tif"]


def test_writer_that_wrote_nothing_is_an_error_not_an_empty_file(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "a.tif"):
            pass

    with pytest.raises(FileNotFoundError):
        write()
    assert os.listdir(tmp_path) == []


def test_failing_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.tif"
    (target / "inside").mkdir(parents=True)  # a folder took the name in the meantime
    with pytest.raises(OSError, match="directory"):
        write_text(target, "new")
    assert os.listdir(tmp_path) == ["a.tif"]


def test_text_is_utf8_and_replaces(tmp_path: Path) -> None:
    write_text(tmp_path / "a.md", "old")
    write_text(tmp_path / "a.md", "dB × 2\n")
    assert (tmp_path / "a.md").read_bytes() == "dB × 2\n".encode()


def test_processes_do_not_share_a_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = temporary_sibling(tmp_path / "a.tif")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert temporary_sibling(tmp_path / "a.tif") != mine


def test_output_that_can_be_written_is_let_through(tmp_path: Path) -> None:
    existing = tmp_path / "old.tif"
    existing.touch()
    check_output(tmp_path / "new.tif", overwrite=False)
    check_output(existing, overwrite=True)


def test_output_that_cannot_be_written_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    existing = tmp_path / "old.tif"
    existing.touch()
    with pytest.raises(InputError, match=r"old\.tif: already exists; .* --overwrite"):
        check_output(existing, overwrite=False)
    with pytest.raises(InputError, match=r"is a folder; give a file name"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"nowhere: no such folder; create it first"):
        check_output(tmp_path / "nowhere" / "a.tif", overwrite=False)
    with pytest.raises(InputError, match=r"old\.tif: no such folder"):
        check_output(existing / "a.tif", overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(InputError, match=r"not writable; choose another folder"):
        check_output(tmp_path / "new.tif", overwrite=False)


def test_odd_names_are_written_as_given_or_refused(tmp_path: Path) -> None:
    for name in (
        "a;b!.txt",
        "line\nbreak.txt",
        "n" * 251 + ".txt",
        b"\xff.txt".decode("utf-8", "surrogateescape"),
    ):
        check_output(tmp_path / name, overwrite=False)
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    assert len(os.listdir(tmp_path)) == 4
    for name in ("n" * 256, "a\0b"):
        with pytest.raises(InputError, match="choose another name"):
            check_output(tmp_path / name, overwrite=True)


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "patient.json"
    target.touch(mode=0o600)
    write_text(target, "new")
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    check_output(link, overwrite=False)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path / "real") == ["a.txt"]


def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(InputError, match="is no plain file"):
            check_output(path, overwrite=True)


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host = socket.gethostname()
    names = {
        f".fieldfare.{host}.{ended.pid}.0.tif": False,
        f".fieldfare.{host}.{ended.pid}.1": False,
        f".fieldfare.{host}.{alive.pid}.0.tif": True,
        f".fieldfare.{host}.{os.getpid()}.9.tif": True,
        f".fieldfare.elsewhere.{ended.pid}.0.tif": True,
        ".fieldfare.notes": True,
        "a.tif": True,
    }
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / f".fieldfare.{host}.{ended.pid}.2").mkdir()
    check_output(tmp_path / "new.tif", overwrite=False)
    alive.communicate(b"\n")
    assert sorted(os.listdir(tmp_path)) == sorted(name for name, kept in names.items() if kept)


@pytest.mark.parametrize("ending", ["", ".tif", ".plain.tif", ".tif.ovr.tmp"])
def test_what_a_killed_run_left_goes_whatever_a_writer_added_to_its_name(
    tmp_path: Path, ending: str
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {pid: f".fieldfare.{socket.gethostname()}.{pid}.6{ending}" for pid in (dead.pid, 1)}
    for name in names.values():
        (tmp_path / name).write_text("half")
    check_output(tmp_path / "a.tif", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [names[1]]  # whose process lives

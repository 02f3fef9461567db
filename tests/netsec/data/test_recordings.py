# SPDX-License-Identifier: Apache-2.0
"""Names of recordings, captures in folders, and what is refused before anything is read."""

from pathlib import Path

import pytest

from fieldfare.common.errors import InputError
from fieldfare.netsec.data.recordings import check_captures, find_captures, recording_name
from fieldfare.netsec.options import CaptureOptions


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.pcap", "a"),
        ("in/a.b.pcapng", "a.b"),
        ("a.cap.gz", "a"),
        ("A.PCAP.ZST", "A"),
        ("a.gz", "a"),
        ("a", "a"),
        ("a.pcap.pcap", "a.pcap"),
        ("a.dump", "a.dump"),
        (".pcap", ".pcap"),
    ],
)
def test_a_recording_is_named_without_its_endings(file, name):
    assert recording_name(Path(file)) == name


def test_captures_within_folders_are_found_by_name(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("b.pcap", "in/a.pcapng.gz", "in/notes.txt"):
        (tmp_path / name).touch()
    given = [tmp_path / "in" / "notes.txt", tmp_path]
    assert find_captures(given) == [given[0], tmp_path / "b.pcap", tmp_path / "in/a.pcapng.gz"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no captures"):
        find_captures([tmp_path / "empty"])


def test_captures_or_an_interface_and_not_both(tmp_path):
    capture = tmp_path / "a.pcap"
    with pytest.raises(InputError, match="no such file"):
        check_captures([capture], CaptureOptions())
    capture.touch()
    check_captures([capture, Path("-")], CaptureOptions())
    check_captures([], CaptureOptions(interface="lo"))
    for captures, options in (
        ([], CaptureOptions()),
        ([capture], CaptureOptions(interface="lo")),
    ):
        with pytest.raises(InputError, match="give captures or --interface"):
            check_captures(captures, options)

# SPDX-License-Identifier: Apache-2.0
"""What the campaigns share: commands on small inputs, runs in fresh folders, outputs by digest."""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGES = (".html", ".jsonl", ".log")
"""Of files that tell the time: they must be there, but differ."""


@dataclass(frozen=True)
class Command:
    """A command line in which `{out}` stands for a folder of its outputs.

    Attributes:
        line: for instance `wl-precode infer h.npz -o {out}/w.npz`.
    """

    line: str

    def arguments(self, folder: Path) -> list[str]:
        """Ready to run, with the program beside this interpreter or on PATH."""
        name, *rest = (part.replace("{out}", str(folder)) for part in shlex.split(self.line))
        beside = Path(sys.executable).with_name(name)
        program = str(beside) if beside.exists() else shutil.which(name)
        if program is None:
            raise SystemExit(f"{name}: no such command")
        return [program, *rest]

    def start(self, folder: Path, **changed: str) -> subprocess.Popen[str]:
        """Begin a run."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **changed}
        return subprocess.Popen(
            self.arguments(folder),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def run(self, folder: Path, **changed: str) -> tuple[int, str]:
        """A whole run: exit code and standard error."""
        process = self.start(folder, **changed)
        _, told = process.communicate()
        return process.returncode, told


def digests(folder: Path) -> dict[str, str]:
    """Of every file in a folder, by its place there; of pages only that they are there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            page = path.suffix in PAGES
            found[str(path.relative_to(folder))] = (
                "page" if page else hashlib.sha256(path.read_bytes()).hexdigest()
            )
    return found


def not_whole(folder: Path, whole: Mapping[str, str]) -> list[str]:
    """Files under final names that differ from those of a run that was left alone."""
    found = digests(folder).items()
    shown = ((path, digest) for path, digest in found if "/." not in f"/{path}")
    return [path for path, digest in shown if whole.get(path) not in ("page", digest)]


def hidden(folder: Path) -> list[str]:
    """Temporary files that are still there."""
    return sorted(str(path) for path in folder.rglob(".*"))


def fresh_folder() -> tempfile.TemporaryDirectory[str]:
    """For the outputs of one run; removed at the end of `with`."""
    return tempfile.TemporaryDirectory(prefix="campaign-")


def parser(text: str | None) -> argparse.ArgumentParser:
    """Of a campaign's command line."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=int, default=0)
    return made


def verdict(name: str, tried: int, failures: Mapping[str, str]) -> int:
    """Print tried and failed with each failure's story; the exit code."""
    for which, story in failures.items():
        print(f"FAILED {which}: {story}")
    print(f"{name}: {tried} tried, {len(failures)} failed")
    return 1 if failures else 0

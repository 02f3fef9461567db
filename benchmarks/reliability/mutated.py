# SPDX-License-Identifier: Apache-2.0
"""Give commands damaged inputs: each is read or refused in one line, in bounded time and memory.

    python benchmarks/reliability/mutated.py --count 1000000 --input h.npz \\
        "wl-precode infer {in} -o {out}/w.npz --method rzf"

The input is damaged at random (bytes changed, cut, doubled, moved, numbers replaced by extreme
ones); the command runs in a child of this process, which has loaded everything before, with a limit
of memory and time. Allowed ends: 0, 2, or 1 with one line that names no Python exception.
"""

import contextlib
import importlib
import importlib.metadata
import io
import os
import random
import resource
import shlex
import signal
import sys
import traceback
from pathlib import Path

import click
from campaign import digests, fresh_folder, parser, verdict

EXTREMES = (b"\x00" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"1" * 18, b"-1")


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One to four random changes."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randrange(len(found) + 1), draw.choice((1, 2, 4, 8, 64, 1024))
        kind = draw.randrange(6)
        if kind == 0 and found:
            found[at % len(found)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del found[at : at + length]
        elif kind == 2:
            found[at:at] = found[at : at + length]
        elif kind == 3:
            extreme = draw.choice(EXTREMES)
            found[at : at + len(extreme)] = extreme
        elif kind == 4:
            found[at : at + length] = draw.randbytes(length)
        else:
            del found[at:]
    return bytes(found)


def command_group(name: str) -> click.Group:
    """What the installed command calls."""
    (point,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    found: click.Group = point.load()
    return found


def attempt(group: click.Group, arguments: list[str], memory: int, seconds: int) -> str:
    """Run in a child process; what went wrong, empty if nothing did."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        told, code = io.StringIO(), 0
        try:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            signal.alarm(seconds)
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                group.main(arguments, standalone_mode=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            told.write("UNCAUGHT " + traceback.format_exc())
            code = 1
        os.write(writing, told.getvalue()[-4000:].encode(errors="replace"))
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "takes too long" if number == signal.SIGALRM else f"dies of signal {number}"
    code = os.waitstatus_to_exitcode(status)
    errors = [line for line in said.splitlines() if line.startswith("Error: ")]
    if "UNCAUGHT" in said:
        return said[-300:]
    if code not in (0, 1, 2, 3):
        return f"ends with {code}: {said[-200:]}"
    if code == 1 and any(f"{name}Error:" in said for name in ("Type", "Value", "Key", "Attribute")):
        return said[-200:]
    if code in (1, 2) and len(errors) != 1 and "Usage" not in said:
        return f"ends with {code} and says {said[-200:]!r}"
    return ""


def load(group: click.Group, arguments: list[str]) -> None:
    """Import what the command needs; it runs in a child, for threads do not survive a fork."""
    reading, writing = os.pipe()
    if not os.fork():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            group.main(arguments, standalone_mode=True)
        with os.fdopen(writing, "w") as pipe:
            pipe.write("\n".join(name for name in sys.modules if not name.startswith("_")))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        names = pipe.read().split()
    os.wait()
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("command")
    arguments.add_argument("--input", type=Path, required=True, help="A good file.")
    arguments.add_argument("--count", type=int, default=1000)
    arguments.add_argument("--memory", type=int, default=16, help="GiB of address space.")
    arguments.add_argument("--seconds", type=int, default=60, help="For one input.")
    arguments.add_argument("--keep", type=Path, help="Folder for inputs that fail.")
    options = arguments.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    draw, good = random.Random(options.seed), options.input.read_bytes()
    name, *rest = shlex.split(options.command)
    group, failures = command_group(name), {}
    with fresh_folder() as folder:
        path = Path(folder) / f"in{''.join(options.input.suffixes)}"

        def line(number: int) -> list[str]:
            out = Path(folder) / f"out{number}"
            out.mkdir()
            return [part.replace("{in}", str(path)).replace("{out}", str(out)) for part in rest]

        path.write_bytes(good)
        load(group, line(0))
        if not digests(Path(folder) / "out0"):
            raise SystemExit(f"{options.command}: fails on {options.input} itself")
        for number in range(1, options.count + 1):
            damaged = mutate(good, draw)
            path.write_bytes(damaged)
            story = attempt(group, line(number), options.memory << 30, options.seconds)
            if story:
                failures[str(number)] = story
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{number}{path.suffix}").write_bytes(damaged)
    return verdict("mutated inputs", options.count, failures)


if __name__ == "__main__":
    sys.exit(main())

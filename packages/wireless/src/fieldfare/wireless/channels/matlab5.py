# SPDX-License-Identifier: Apache-2.0
"""MATLAB 5 to 7 files, read by scipy in a process of its own: a damaged one may end its reader.

The process answers on its output as long as its input is open: to a line that is empty the table of
contents, to one with a name that array, structure or cell. An answer is a line of JSON, a tree in
which a leaf is {"array": i}, and those arrays in npy's format. `python -m` runs the process; it
imports no torch.
"""

import contextlib
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .structures import Tree, tree_of


class Matlab5:
    """A reader of one file.

    Raises:
        ValueError: whatever is wrong with the file, also where it ended the process.
        MemoryError: too large.
    """

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-P", "-m", __spec__.name, str(path.absolute())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the asking process, which closes the pipes
        )
        weakref.finalize(self, _end, self._process)

    def contents(self) -> dict[str, str]:
        """MATLAB's class of each array by its name."""
        kinds: dict[str, str] = self._asked("")
        return kinds

    def load(self, name: str) -> Tree:
        """An array, structure or cell; arrays have MATLAB's order of axes."""
        return _tree(self._asked(name), self._arrays)

    def _asked(self, line: str) -> Any:
        questions, answers = self._process.stdin, self._process.stdout
        assert questions
        assert answers
        try:
            questions.write(json.dumps(line).encode() + b"\n")
            questions.flush()
            answer = json.loads(answers.readline())
            self._arrays = [_array(answers) for _ in range(answer["arrays"])]
        except (BrokenPipeError, json.JSONDecodeError, EOFError):
            raise ValueError("reading it ended the reader") from None
        if answer["error"] == MemoryError.__name__:
            raise MemoryError
        if answer["error"] is not None:
            raise ValueError(answer["error"])
        return answer["value"]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            assert pipe
            pipe.close()
    process.wait()


class _Pipe:
    """What numpy may only read from: it would ask a file for its position."""

    def __init__(self, file: Any) -> None:
        self.read = file.read


def _array(file: Any) -> np.ndarray:
    return np.asarray(np.lib.format.read_array(_Pipe(file), allow_pickle=False))


def _tree(value: Any, arrays: list[np.ndarray]) -> Tree:
    if isinstance(value, list):
        return [_tree(one, arrays) for one in value]
    if "array" in value:
        return arrays[value["array"]]
    return {name: _tree(one, arrays) for name, one in value["fields"].items()}


def _told(tree: Tree, arrays: list[np.ndarray]) -> Any:
    """A tree for JSON; its arrays are added to the list."""
    if isinstance(tree, list):
        return [_told(one, arrays) for one in tree]
    if isinstance(tree, dict):
        return {"fields": {name: _told(one, arrays) for name, one in tree.items()}}
    if tree.dtype.hasobject:
        raise ValueError("Python objects: allow_pickle")
    arrays.append(tree)
    return {"array": len(arrays) - 1}


def _serve(path: str, questions: BinaryIO, answers: BinaryIO) -> None:
    import scipy.io

    for line in questions:
        value, error = None, None
        arrays: list[np.ndarray] = []
        try:
            if name := json.loads(line):
                tree = tree_of(scipy.io.loadmat(path, variable_names=[name])[name])
                value = _told(tree, arrays)
            else:
                value = {name: kind for name, _, kind in scipy.io.whosmat(path)}
        except MemoryError:
            error = MemoryError.__name__
        except Exception as fault:  # readers of damaged files raise all there is
            error = str(fault)
        arrays = [] if error else arrays
        head = {"value": value, "error": error, "arrays": len(arrays)}
        answers.write(json.dumps(head).encode() + b"\n")
        for array in arrays:
            np.lib.format.write_array(answers, array, allow_pickle=False)
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)

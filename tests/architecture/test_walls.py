# SPDX-License-Identifier: Apache-2.0
"""The walls of the monorepo: who imports whom, and what every file must and must not hold."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
DOMAINS = [name for name in PACKAGES if name != "common"]
MAX_LINES = 400


def repository_files() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = sorted({ROOT / name for name in listed.split("\0") if name})
    return [path for path in paths if path.is_file() and not path.is_symlink()]


FILES = repository_files()
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]


def imported(path: Path) -> Iterator[str]:
    """Absolute dotted names that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def foreign_imports(path: Path, allowed: set[str]) -> list[str]:
    """Fieldfare packages that a file imports and may not."""
    names = [name.split(".") for name in imported(path)]
    return [".".join(name) for name in names if name[0] == "fieldfare" and name[1] not in allowed]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_and_benchmarks_import_only_their_package_and_common(package: str) -> None:
    """Of the packages themselves the contracts in pyproject.toml say so; see `./dev lint`."""
    homes = [ROOT / "tests" / package, ROOT / "benchmarks" / package]
    files = [path for path in PYTHON_FILES if any(home in path.parents for home in homes)]
    bad = {relative(path): foreign_imports(path, {"common", package}) for path in files}
    assert not {path: names for path, names in bad.items() if names}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_declares_only_common_among_ours(package: str) -> None:
    declared = (ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(declared)["project"]
    ours = [name for name in project["dependencies"] if name.startswith("fieldfare-")]
    if package == "common":
        assert not ours
    else:
        assert len(ours) == 1
        assert re.fullmatch(r"fieldfare-common>=\d+\.\d+,<\d+(\.\d+)?", ours[0])


@pytest.mark.parametrize("package", PACKAGES)
def test_version_is_a_literal_equal_to_the_declared_one(package: str) -> None:
    home = ROOT / "packages" / package
    declared = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tree = ast.parse((home / f"src/fieldfare/{package}/__init__.py").read_text(encoding="utf-8"))
    literals = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert literals == [declared["version"]]
    assert f"## {declared['version']}\n" in (home / "CHANGELOG.md").read_text(encoding="utf-8")


def test_fieldfare_is_a_namespace_package() -> None:
    assert not list(ROOT.glob("packages/*/src/fieldfare/__init__.py"))
    typed = {path.parent.name for path in ROOT.glob("packages/*/src/fieldfare/*/py.typed")}
    assert typed == set(PACKAGES)


def holds_logic(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return False
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) not in ("__all__", "__version__")
    return True


def test_init_files_hold_only_imports_and_names() -> None:
    inits = [path for path in PYTHON_FILES if path.name == "__init__.py"]
    bad = [
        f"{relative(path)}:{node.lineno}"
        for path in inits
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if holds_logic(node)
    ]
    assert not bad


def test_every_code_file_names_its_licence() -> None:
    bad = []
    for path in FILES:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:2]
        is_script = bool(lines) and lines[0].startswith("#!")
        if is_script:
            lines = lines[1:]
        is_code = path.suffix == ".py" or is_script or path.name == "BUILD"
        if is_code and lines[:1] != ["# SPDX-License-Identifier: Apache-2.0"]:
            bad.append(relative(path))
    assert not bad


def test_no_code_file_is_long() -> None:
    lengths = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON_FILES
    }
    assert not {path: length for path, length in lengths.items() if length > MAX_LINES}


def test_no_file_names_a_machine_or_a_registry() -> None:
    folders = "|".join(["work", "root", "home"])
    hosts = "|".join(["pypi", "pythonhosted", r"npmjs", r"download\.pytorch"])
    pattern = re.compile(rf"(?<![\w.$}}/])/(?:{folders})/\w|\b(?:{hosts})\.(?:org|com)\b")
    bad = []
    for path in FILES:
        content = path.read_bytes()
        if b"\0" not in content[:4096]:
            for match in pattern.finditer(content.decode("utf-8", errors="replace")):
                bad.append(f"{relative(path)}: {match.group()}")
    assert not bad

# SPDX-License-Identifier: Apache-2.0
"""The public names of every package are the ones listed beside this file, in public_api/.

A name is public when its module and the name itself do not begin with an underscore, or when the
module lists it in `__all__`. Functions are listed with their parameters, classes with those of
`__init__` where they have one. After a wanted change, `./dev api` (this file, run as a script)
rewrites the lists; the difference then shows in review.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).parent / "public_api"
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Names of the parameters, with `/`, `*` and `**` but without types and defaults."""
    given = function.args
    names = [argument.arg for argument in given.posonlyargs]
    names += ["/"] if names else []
    names += [argument.arg for argument in given.args]
    if given.vararg or given.kwonlyargs:
        names.append(f"*{given.vararg.arg if given.vararg else ''}")
    names += [argument.arg for argument in given.kwonlyargs]
    names += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return f"({', '.join(name for name in names if name != 'self')})"


def defined(node: ast.stmt) -> dict[str, str]:
    """Names that a top-level statement defines, each with how it is listed."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name: node.name + parameters(node)}
    if isinstance(node, ast.ClassDef):
        inits = [
            parameters(item)
            for item in node.body
            if isinstance(item, ast.FunctionDef) and item.name == "__init__"
        ]
        return {node.name: node.name + "".join(inits)}
    if isinstance(node, ast.AnnAssign | ast.Assign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {target.id: target.id for target in targets if isinstance(target, ast.Name)}
    return {}


def public_names(path: Path) -> list[str]:
    """What a module offers, as listed."""
    known: dict[str, str] = {}
    exported = None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        known |= defined(node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            exported = ast.literal_eval(node.value)
    if exported is None:
        exported = [name for name in known if not name.startswith("_")]
    return sorted(known.get(name, name) for name in exported)


def public_api(package: str) -> list[str]:
    """Every public name of a package, fully qualified."""
    source = ROOT / "packages" / package / "src"
    lines = []
    for path in sorted(source.rglob("*.py")):
        parts = list(path.relative_to(source).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if not any(part.startswith("_") for part in parts):
            lines += [".".join([*parts, name]) for name in public_names(path)]
    return lines


@pytest.mark.parametrize("package", PACKAGES)
def test_public_api_is_the_frozen_one(package: str) -> None:
    frozen = (LISTS / f"{package}.txt").read_text(encoding="utf-8").splitlines()
    assert public_api(package) == frozen, "run ./dev api if this change is wanted"


if __name__ == "__main__":
    for package in PACKAGES:
        text = "".join(f"{line}\n" for line in public_api(package))
        (LISTS / f"{package}.txt").write_text(text, encoding="utf-8")
        print(f"{package}: {len(text.splitlines())} public names")

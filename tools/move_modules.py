"""Move every module to its place, and rewrite whatever names it. Run once, from the root.

The moves come from a table: old path, new path. Imports are resolved to modules and written anew:
relative to a module beside or below, else from `hsoftmax`. Dotted names in strings follow.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("moves.txt")
PACKAGES = ("models", "bundle", "runtime", "scoring", "exporter", "service")
ROOTS = (*PACKAGES, "hsoftmax", "tests", "benchmarks")
PLACES = (*ROOTS, "examples")


def main() -> None:
    moves = dict(line.split() for line in TABLE.read_text().splitlines() if line.strip())
    old_files = sorted(_python_files())
    old_modules = {module_of(path) for path in old_files}
    renamed = {module_of(old): installed(module_of(new)) for old, new in moves.items()
               if old.endswith(".py")}  # fmt: skip
    new_name = {name: renamed.get(name, installed(name)) for name in old_modules}
    for old, new in moves.items():
        Path(new).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "mv", old, new], check=True)
    for old in old_files:
        path = Path(moves.get(old, old))
        text = path.read_text()
        rewritten = rewrite(text, module_of(old), old.endswith("__init__.py"), new_name)
        path.write_text(rewrite_strings(rewritten, new_name))
    for folder in sorted({parent for new in moves.values() for parent in Path(new).parents}):
        init = folder / "__init__.py"
        if (
            folder.parts
            and folder.parts[0] in ROOTS
            and not init.exists()
            and folder.name != "data"
        ):
            init.touch()


def _python_files() -> Iterator[str]:
    listed = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True)
    return (path for path in listed.stdout.split() if path.startswith(PLACES))


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def installed(module: str) -> str:
    """The name under which it is imported once it is installed."""
    return f"hsoftmax.{module}" if module.split(".")[0] in PACKAGES else module


def rewrite(text: str, module: str, is_package: bool, new_name: dict[str, str]) -> str:
    """The text with every import of ours written anew, and the modules' new names where used."""
    tree = ast.parse(text)
    here = new_name.get(module, module)
    package = here if is_package else here.rpartition(".")[0]
    edits: list[Edit] = []
    local: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            made = _rewritten(node, module, is_package, package, new_name, local)
            if made is not None:
                joined = f"\n{' ' * node.col_offset}".join(made)
                edits.append((_start(node), (node.end_lineno, node.end_col_offset), joined))
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else None
        if name in local:
            edits.append((_start(node), (node.end_lineno, node.end_col_offset), local[name]))
    return _edited(text, edits)


Edit = tuple[tuple[int, int], tuple[int, int], str]


def _start(node: ast.AST) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _edited(text: str, edits: list[Edit]) -> str:
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for (first, start), (last, end), made in sorted(edits, reverse=True):
        head, tail = lines[first - 1][:start], lines[last - 1][end:]
        lines[first - 1 : last] = [head + made.encode() + tail]
        lines[first:first] = [b""] * (last - first)  # numbers of lines stay
    return b"".join(lines).decode()


def _rewritten(
    node: ast.Import | ast.ImportFrom,
    module: str,
    is_package: bool,
    package: str,
    new_name: dict[str, str],
    local: dict[str, str],
) -> list[str] | None:
    if isinstance(node, ast.Import):
        (alias, *more) = node.names
        if alias.name not in new_name or alias.name.split(".")[0] not in PACKAGES:
            return None
        assert not more, ast.unparse(node)
        parent, _, leaf = new_name[alias.name].rpartition(".")
        if alias.asname is None and "." in alias.name:
            local[alias.name] = leaf
        return [f"from {parent} import {leaf}" + (f" as {alias.asname}" if alias.asname else "")]
    base = _base(node, module, is_package)
    if base.split(".")[0] not in ROOTS or base not in new_name:
        return None
    groups: dict[str, list[str]] = {}
    for alias in node.names:
        full = f"{base}.{alias.name}"
        if full in new_name and (alias.name not in _bound(base) or module == base):
            target, _, name = new_name[full].rpartition(".")
            if alias.asname is None and name != alias.name:
                local[alias.name] = name
        else:
            target, name = new_name[base], alias.name
        spelled = f"{name} as {alias.asname}" if alias.asname else name
        groups.setdefault(target, []).append(spelled)
    return [
        f"from {_spelled(target, package)} import {_listed(names)}"
        for target, names in groups.items()
    ]


@cache
def _bound(package: str) -> frozenset[str]:
    """The names that a package's own file binds, as it stands before the moves."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:{package.replace('.', '/')}/__init__.py"],
        capture_output=True, text=True,
    )  # fmt: skip
    if shown.returncode:
        return frozenset()
    nodes = [n for n in ast.walk(ast.parse(shown.stdout)) if isinstance(n, ast.ImportFrom)]
    return frozenset(a.asname or a.name for n in nodes if n.module for a in n.names)


def _base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".") if is_package else module.split(".")[:-1]
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _spelled(target: str, package: str) -> str:
    if target == package:
        return "."
    below = f"{package}."
    return f".{target.removeprefix(below)}" if target.startswith(below) else target


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def rewrite_strings(text: str, new_name: dict[str, str]) -> str:
    """Dotted names of modules that stand in strings and comments, longest first."""
    edits: list[Edit] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            made = _renamed(token.string, new_name)
            if made != token.string:
                lines = text.splitlines()
                edits.append((_bytes(token.start, lines), _bytes(token.end, lines), made))
    return _edited(text, edits)


def _bytes(place: tuple[int, int], lines: list[str]) -> tuple[int, int]:
    line, column = place
    return line, len(lines[line - 1][:column].encode())


def _renamed(text: str, new_name: dict[str, str]) -> str:
    for old in sorted(new_name, key=len, reverse=True):
        new = new_name[old]
        if "." in old and old != new:
            named = rf"(?<![\w./])(?<!hsoftmax\.){re.escape(old)}(?![\w(/])"
            text = re.sub(named, new, text)
    return text


if __name__ == "__main__":
    main()

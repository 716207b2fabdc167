"""Move every module to its place, and rewrite whatever names it. Run once, from the root.

The moves come from a table: old path, new path. Imports are resolved to modules and written anew:
relative to a module beside or below, else from `hsoftmax`. Dotted names in strings follow.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
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
    """The text with every import of ours written anew."""
    lines = text.splitlines(keepends=True)
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    for node in sorted(nodes, key=lambda n: -n.lineno):
        made = _rewritten(node, module, is_package, new_name)
        if made is None:
            continue
        first, last = node.lineno - 1, node.end_lineno
        tail = lines[last - 1][node.end_col_offset :].rstrip("\n")
        head = lines[first][: node.col_offset]
        indent = " " * node.col_offset if not head.strip() else ""
        joined = f"\n{indent}".join(made)
        lines[first:last] = [f"{head}{joined}{tail}\n"]
    return "".join(lines)


def _rewritten(
    node: ast.Import | ast.ImportFrom, module: str, is_package: bool, new_name: dict[str, str]
) -> list[str] | None:
    here = new_name.get(module, module)
    package = here if is_package else here.rpartition(".")[0]
    if isinstance(node, ast.Import):
        if not any(
            alias.name in new_name and alias.name.split(".")[0] in PACKAGES for alias in node.names
        ):
            return None
        assert len(node.names) == 1, ast.unparse(node)
        (alias,) = node.names
        target = new_name[alias.name]
        if alias.asname is None and "." not in alias.name:
            return [f"from hsoftmax import {alias.name}"]
        return [f"import {target}" + (f" as {alias.asname}" if alias.asname else "")]
    base = _base(node, module, is_package)
    if base.split(".")[0] not in ROOTS or base not in new_name:
        return None
    groups: dict[str, list[str]] = {}
    for alias in node.names:
        full = f"{base}.{alias.name}"
        if full in new_name:
            target, _, name = new_name[full].rpartition(".")
            if alias.asname:
                name = f"{name} as {alias.asname}"
        else:
            target = new_name[base]
            name = alias.name + (f" as {alias.asname}" if alias.asname else "")
        groups.setdefault(target, []).append(name)
    return [
        f"from {_spelled(target, package)} import {_listed(names)}"
        for target, names in groups.items()
    ]


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
    """Dotted names of modules that stand in strings, longest first; imports are done already."""
    for old in sorted(new_name, key=len, reverse=True):
        new = new_name[old]
        if "." in old and old != new:
            text = re.sub(
                rf"(?<![\w./])(?<!hsoftmax\.){re.escape(old)}(?=[.\"'`:; ]|$)",
                new,
                text,
                flags=re.M,
            )
    return text


if __name__ == "__main__":
    main()

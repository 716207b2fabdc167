"""Reads the imports of packages from their source, and builds graphs of modules and rooms.

Imports inside functions and under TYPE_CHECKING are included.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = (
    "models", "bundle", "featurizers", "runtime", "scoring", "exporter", "stores", "service",
    "hsoftmax",
)  # fmt: skip
INSTALLED = "hsoftmax"  # the installed import name; all packages are inside it

Graph = Mapping[str, frozenset[str]]


def read_modules(root: Path) -> dict[str, Path]:
    """Return every module of the packages by its dotted name without the installed name."""
    files = (path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {
        module_name(path.relative_to(root)): path for path in sorted(files) if not _is_linked(path)
    }


def _is_linked(path: Path) -> bool:
    """Return True for a path inside a link to a package, as `hsoftmax/service` is."""
    return any(parent.is_symlink() for parent in path.parents)


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def module_graph(root: Path) -> Graph:
    """Return for each module the modules of the project that it imports."""
    modules = read_modules(root)
    return {
        name: frozenset(_targets(name, path, modules)) - {name} for name, path in modules.items()
    }


def _targets(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, name, is_package)
            candidates = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for candidate in candidates:
            target = _module_of(candidate.removeprefix(f"{INSTALLED}."), modules)
            if target is not None:
                yield target


def _base(node: ast.ImportFrom, name: str, is_package: bool) -> str:
    """Return the absolute name of the module or package after `from`."""
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    kept = len(parts) - node.level + is_package
    return ".".join([*parts[:kept], *([node.module] if node.module else [])])


def _module_of(candidate: str, modules: Mapping[str, Path]) -> str | None:
    """Return the module of this name, or the module that defines the name; else None."""
    for found in (candidate, candidate.rpartition(".")[0]):
        if found in modules:
            return found
        if f"{INSTALLED}.{found}" in modules:
            return f"{INSTALLED}.{found}"
    return None


def imported_roots(path: Path) -> frozenset[str]:
    """Return the top-level package of every absolute import of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return frozenset(found)


def room_of(module: str) -> tuple[str, str]:
    """Return the package of a module, and the module's room: a folder or file in the package."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def room_graph(modules: Graph, package: str) -> Graph:
    """Return for each room of a package the rooms that it imports from."""
    rooms: dict[str, set[str]] = {}
    for name, targets in modules.items():
        here, room = room_of(name)
        if here == package and room:
            taken = {at for inside, at in map(room_of, targets) if inside == package}
            rooms.setdefault(room, set()).update(taken - {room, ""})
    return {room: frozenset(taken) for room, taken in rooms.items()}


def find_circle(graph: Graph) -> list[str] | None:
    """Return the modules of one circle of imports, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return None


def floors(graph: Graph) -> list[list[str]]:
    """Return the rooms by floor, the lowest first. A floor imports only from lower ones."""
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        sorter.done(*ready)
        found.append(ready)
    return found

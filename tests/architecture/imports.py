"""The imports of a tree of packages, read from its source: who takes what from whom.

Imports inside functions and behind TYPE_CHECKING count like all others.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("models", "bundle", "runtime", "scoring", "exporter", "service", "hsoftmax")
INSTALLED = "hsoftmax"  # the one import name, under which all others lie

Graph = Mapping[str, frozenset[str]]


def read_modules(root: Path) -> dict[str, Path]:
    """Every module of the packages by its dotted name, without the installed name in front."""
    files = (path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {
        module_name(path.relative_to(root)): path for path in sorted(files) if not _is_linked(path)
    }


def _is_linked(path: Path) -> bool:
    """True inside a link to a package, as `hsoftmax/service` is."""
    return any(parent.is_symlink() for parent in path.parents)


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def module_graph(root: Path) -> Graph:
    """For each module, the modules of ours that it imports."""
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
    """The absolute name of what an import takes from."""
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    kept = len(parts) - node.level + is_package
    return ".".join([*parts[:kept], *([node.module] if node.module else [])])


def _module_of(candidate: str, modules: Mapping[str, Path]) -> str | None:
    """The module itself, or the one whose name it is in."""
    for found in (candidate, candidate.rpartition(".")[0]):
        if found in modules:
            return found
        if f"{INSTALLED}.{found}" in modules:
            return f"{INSTALLED}.{found}"
    return None


def imported_roots(path: Path) -> frozenset[str]:
    """The first part of every absolute import of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return frozenset(found)


def room_of(module: str) -> tuple[str, str]:
    """The package that a module is in, and the folder or file at the top of it."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def room_graph(modules: Graph, package: str) -> Graph:
    """For each folder and file at the top of a package, those whose modules it imports."""
    rooms: dict[str, set[str]] = {}
    for name, targets in modules.items():
        here, room = room_of(name)
        if here == package and room:
            taken = {at for inside, at in map(room_of, targets) if inside == package}
            rooms.setdefault(room, set()).update(taken - {room, ""})
    return {room: frozenset(taken) for room, taken in rooms.items()}


def find_circle(graph: Graph) -> list[str] | None:
    """The modules of one circle of imports, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return None


def floors(graph: Graph) -> list[list[str]]:
    """Rooms by how far they are above those that import nothing, the lowest first."""
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        sorter.done(*ready)
        found.append(ready)
    return found

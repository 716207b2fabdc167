"""Reads an HDF5 file in a process of its own, to see that it can be read.

The HDF5 library may run without end, or crash, on a damaged file. `expect_readable` lets a child
process read what a source is about to read, with limits on its time and its memory. The library
does the same again in this process, where the file is then safe to open.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STARTUP_SECONDS = 2
_BYTES_PER_SECOND = 25_000_000  # that the library reads at least, also when it decompresses
_STARTUP_BYTES = 1 << 30  # of address space; importing NumPy takes half of it
_MAX_OBJECTS = 100_000
_MAX_REASON_CHARS = 200
_REFUSED = 3  # exit status of the child


class Hdf5Error(Exception):
    """The file cannot be read; the message says why."""


def expect_readable(path: Path, max_bytes: int) -> None:
    """Raise Hdf5Error unless every array of the file can be read, all within `max_bytes`."""
    seconds = _STARTUP_SECONDS + path.stat().st_size // _BYTES_PER_SECOND
    command = [sys.executable, "-m", __name__, str(path), str(max_bytes), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=10 * seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Hdf5Error(f"its reading did not end within {seconds} s") from None
    if ended.returncode == _REFUSED:
        raise Hdf5Error(ended.stderr.decode("utf-8", "replace").strip()[:_MAX_REASON_CHARS])
    if ended.returncode < 0:
        raise Hdf5Error("the HDF5 library crashed or did not end")
    if ended.returncode:
        raise Hdf5Error("the HDF5 library failed")


def main(path: str, max_bytes: str, seconds: str) -> None:
    """Read the file within the limits; exit with a message if that is impossible."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, int(seconds))
    _limit(resource.RLIMIT_AS, _STARTUP_BYTES + 2 * int(max_bytes))
    try:
        _read_all(path, int(max_bytes))
    except Exception as error:  # h5py raises many types for damaged files
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        sys.exit(_REFUSED)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _read_all(path: str, max_bytes: int) -> None:
    import h5py

    with h5py.File(path, "r") as file:
        datasets = list(_datasets(h5py, file))
        num_bytes = sum(dataset.size * dataset.dtype.itemsize for dataset in datasets)
        if num_bytes > max_bytes:
            raise Hdf5Error(f"expected at most {max_bytes} bytes of numbers, got {num_bytes}")
        for dataset in datasets:
            dataset[()]


def _datasets(h5py: Any, file: Any) -> Iterator[Any]:  # noqa: ANN401 -- h5py has no types
    """Yield all datasets, each of which must lie in this file."""
    groups, objects = [file], 0
    while groups:
        group = groups.pop()
        for name in group:
            objects += 1
            if objects > _MAX_OBJECTS:
                raise Hdf5Error(f"expected at most {_MAX_OBJECTS} objects, got more")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Hdf5Error("expected no link to another place or file, got one")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise Hdf5Error("expected no numbers in another file, got some")
                yield item


if __name__ == "__main__":
    main(*sys.argv[1:])

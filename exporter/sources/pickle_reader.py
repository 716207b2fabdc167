"""Reads files that are pickles as data: no name in them is imported, and nothing in them is called.

`pickle_machine` says how. A file may be a gzip file of a pickle, hold several of them, or be the
part of a PyTorch checkpoint.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files import gzip_file
from hsoftmax.exporter.files.input_file import map_input, open_input
from hsoftmax.models.decoder_errors import decoding

from .pickle_machine import PickledGlobal, PickleMachine, instructions, parse_global

Content = mmap.mmap | BytesIO  # unlike an open file, they bound what one instruction reads
_PROTO = b"\x80"  # the first byte of a pickle of protocol 2 or later
_FIRST_OF_PROTOCOL_0 = (b"(", b"]", b"}", b"c")  # of lists, tuples, dictionaries and arrays
_CHECKED_INSTRUCTIONS = 64
_FIRST_BYTES = 4096  # of a gzip file, which hold the first global


def read_pickle(path: Path) -> object:
    """Return the first object of a pickle file, perhaps a gzip file of one, as data.

    Raises:
        SourceError: not a complete pickle, or one that needs more than the file.
    """
    with _open_pickle(path) as content, decoding(_damaged(path)):
        return PickleMachine().run(instructions(content))


def read_pickles(path: Path) -> list[object]:
    """Return all objects of a file of pickles, one after the other, as data.

    Raises:
        SourceError: a pickle is not complete, or needs more than the file.
    """
    objects: list[object] = []
    with _open_pickle(path) as content, decoding(_damaged(path)):
        while not objects or not _is_at_end(content):
            objects.append(PickleMachine().run(instructions(content)))
    return objects


def is_pickle_without_protocol(path: Path) -> bool:
    """Return True for a pickle of protocol 0 or 1, which has no mark of its own at the start."""
    with open_input(path) as file:
        if file.read(1) not in _FIRST_OF_PROTOCOL_0:
            return False
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b".":
            return False
    try:
        with map_input(path, "a pickle") as content:
            return sum(1 for _ in islice(instructions(content), _CHECKED_INSTRUCTIONS)) > 1
    except Exception:  # the decoder's: it is something else
        return False


def _is_at_end(content: Content) -> bool:
    position = content.tell()
    is_at_end = not content.read(1)
    content.seek(position)
    return is_at_end


def _damaged(path: Path) -> Callable[[str], SourceError]:
    return lambda reason: SourceError(f"{path.name}: expected a whole pickle: {reason}")


def expect_plain_checkpoint(content: Any) -> None:  # noqa: ANN401 -- anything with read and readline
    """Read a pickle of a checkpoint as data, before PyTorch's own reader executes it.

    That reader hashes keys, which takes without end for a nested one.

    Raises:
        ValueError and others: not a whole pickle, or one with a nested key.
    """
    PickleMachine(has_persistent_ids=True, has_plain_keys=True).run(instructions(content))


def read_checkpoint_pickle(content: bytes) -> object:
    """Return the object of a PyTorch checkpoint's pickle as data.

    Raises:
        ValueError and others: not a whole pickle.
    """
    return PickleMachine(has_persistent_ids=True).run(instructions(BytesIO(content)))


def first_global(path: Path) -> PickledGlobal | None:
    """Return the first global of a pickle, the class of its object; None if it is not a pickle."""
    with open_input(path) as file:
        first_bytes = file.read(2)
    try:
        if first_bytes == gzip_file.MAGIC:
            return _first_global(instructions(BytesIO(gzip_file.read_gzip(path, _FIRST_BYTES))))
        if first_bytes[:1] != _PROTO:
            return None
        with map_input(path, "a pickle") as content:
            return _first_global(instructions(content))
    except Exception:  # the decoder's, for a damaged file
        return None


@contextmanager
def _open_pickle(path: Path) -> Iterator[Content]:
    with open_input(path) as file:
        is_gzip = file.read(2) == gzip_file.MAGIC
    if is_gzip:
        yield BytesIO(gzip_file.read_gzip(path))
    else:
        with map_input(path, "a whole pickle") as content:
            yield content


def _first_global(instructions: Iterator[tuple[str, Any]]) -> PickledGlobal | None:
    texts: list[str] = []
    for (name, argument), _ in zip(instructions, range(16), strict=False):
        if name == "GLOBAL":
            return parse_global(argument)
        if name == "STACK_GLOBAL":
            return PickledGlobal(*texts[-2:])
        if isinstance(argument, str):
            texts.append(argument)
    return None

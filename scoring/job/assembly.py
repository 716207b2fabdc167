"""Shards put together as one output, on a thread beside the work that still makes them.

What it writes lies aside until the job names it: a run that stops leaves nothing that counts, and
the next one begins with the first shard again.
"""

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from hsoftmax.scoring.errors import CorruptShard, ScoringError

from .checkpoint import Shard
from .output import OutputSpec
from .workspace import Workspace, sync, sync_folder

_LOOK = 0.1  # seconds


# Called with what is written, before it is.
See = Callable[[Any], None]


class _Seen(io.BufferedWriter):
    """A file that is written from its first byte to its last, under somebody's eyes."""

    def __init__(self, path: Path, see: See) -> None:
        super().__init__(io.FileIO(path, "w"), 2**20)
        self._see = see

    def write(self, data: Any, /) -> int:  # noqa: ANN401  bytes, or what lies in memory like them
        self._see(data)
        return super().write(data)


class Assembler:
    """Takes shards in order as they are finished; what stopped it is raised at the next one.

    Left before its result is asked for, it stops where it is.
    """

    def __init__(self, output_spec: OutputSpec, workspace: Workspace) -> None:
        self._shards: SimpleQueue[Shard | None] = SimpleQueue()
        self._left = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assemble")
        self._sha256 = self._thread.submit(
            assemble_output, output_spec, workspace, self._taken(), self._expect_wanted
        )

    def add(self, shard: Shard) -> None:
        """A shard that is in its place. Raises what `put_together` does."""
        if self._sha256.done():
            self._sha256.result()
        self._shards.put(shard)

    def result(self, meanwhile: Callable[[], None] = lambda: None) -> str:
        """The output's SHA-256, when all shards that were added are in it.

        Raises as `add`, and what `meanwhile` does, which is called several times a second.
        """
        self._shards.put(None)
        while not wait([self._sha256], timeout=_LOOK).done:
            meanwhile()
        return self._sha256.result()

    def _taken(self) -> Iterator[Shard]:
        while (shard := self._shards.get()) is not None:
            self._expect_wanted()
            yield shard
        self._expect_wanted()

    def _expect_wanted(self) -> None:
        if self._left:
            raise ScoringError("assembly: expected to be asked for its result, was left")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._shards.put(None)
        self._thread.shutdown(wait=True)


def assemble_output(
    output_spec: OutputSpec,
    workspace: Workspace,
    shards: Iterable[Shard],
    expect_wanted: Callable[[], None] = lambda: None,
) -> str:
    """Write all shards aside as one file, or each as one of a folder; one is there in any case.

    Returns the SHA-256 of its bytes; of a folder, of those of its files one after another.

    Raises what `expect_wanted` does, which is called at every write, and:
        SpoiledShard: a shard is not what was written.
    """
    digest = hashlib.sha256()

    def see(data: Any) -> None:  # noqa: ANN401  as above
        expect_wanted()
        digest.update(data)

    write = partial(_write, output_spec, see)
    paths = (_checked(workspace, shard) for shard in shards)
    aside = workspace.aside_of_assembled
    if not output_spec.folder:
        write(paths, aside)
        return digest.hexdigest()
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for i, shard in enumerate(chain([next(paths, None)], paths)):
        part = aside / f"part-{i:05}.{output_spec.format.name}"
        write([shard] if shard else [], part)
    sync_folder(aside)
    return digest.hexdigest()


def _write(output_spec: OutputSpec, see: See, shards: Iterable[Path], path: Path) -> None:
    with _Seen(path, see) as file:
        output_spec.format.assemble(shards, file, output_spec.record_schema)
        file.flush()
        sync(file.fileno())


def _checked(workspace: Workspace, shard: Shard) -> Path:
    path = workspace.shard(shard.number)
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != shard.sha256:
        raise CorruptShard(
            shard.number,
            f"{path.name}: expected SHA-256 {shard.sha256}, got {got}: the disk changed it; "
            "run again with --resume",
        )
    return path

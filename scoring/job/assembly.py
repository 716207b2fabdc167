"""Assembles shards into one output, on a thread beside the threads that still make shards.

The output has a temporary name until the job commits it. A run that stops leaves nothing that
counts, and the next run assembles from the first shard again.
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

_PROGRESS_INTERVAL_S = 0.1

# Called with each piece of data before it is written.
OnWrite = Callable[[Any], None]


class _ObservedFile(io.BufferedWriter):
    """A file, written from start to end, that passes each piece to `on_write`."""

    def __init__(self, path: Path, on_write: OnWrite) -> None:
        super().__init__(io.FileIO(path, "w"), 2**20)
        self._on_write = on_write

    def write(self, data: Any, /) -> int:  # noqa: ANN401  bytes, or another buffer
        self._on_write(data)
        return super().write(data)


class Assembler:
    """Assembles shards in the order in which they are added.

    An error is raised at the next `add`, or by `result`. A block that ends before it has called
    `result` cancels the assembly.
    """

    def __init__(self, output: OutputSpec, workspace: Workspace) -> None:
        self._shards: SimpleQueue[Shard | None] = SimpleQueue()
        self._cancelled = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assemble")
        self._sha256 = self._thread.submit(
            assemble_output, output, workspace, self._queued(), self._expect_not_cancelled
        )

    def add(self, shard: Shard) -> None:
        """Queues a committed shard. Raises as `assemble_output` does."""
        if self._sha256.done():
            self._sha256.result()
        self._shards.put(shard)

    def result(self, on_wait: Callable[[], None] = lambda: None) -> str:
        """Waits until all added shards are in the output, and returns the output's SHA-256.

        `on_wait` is called several times a second, and may raise to give up.

        Raises as `add`.
        """
        self._shards.put(None)
        while not wait([self._sha256], timeout=_PROGRESS_INTERVAL_S).done:
            on_wait()
        return self._sha256.result()

    def _queued(self) -> Iterator[Shard]:
        while (shard := self._shards.get()) is not None:
            self._expect_not_cancelled()
            yield shard
        self._expect_not_cancelled()

    def _expect_not_cancelled(self) -> None:
        if self._cancelled:
            raise ScoringError("assembly: expected to be asked for its result, was left")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancelled = True
        self._shards.put(None)
        self._thread.shutdown(wait=True)


def assemble_output(
    output: OutputSpec,
    workspace: Workspace,
    shards: Iterable[Shard],
    expect_not_cancelled: Callable[[], None] = lambda: None,
) -> str:
    """Writes all shards as one temporary file, or each as one file of a temporary folder.

    Without any shard it writes an empty output. It returns the SHA-256 of the file, or of the
    folder's files one after another.

    Raises the errors of `expect_not_cancelled`, which is called at every write, and:
        CorruptShard: a shard's bytes are not those that were written.
    """
    digest = hashlib.sha256()

    def on_write(data: Any) -> None:  # noqa: ANN401  as above
        expect_not_cancelled()
        digest.update(data)

    write = partial(_write, output, on_write)
    paths = (_verified_path(workspace, shard) for shard in shards)
    temp_path = workspace.temp_assembled
    if not output.is_folder:
        write(paths, temp_path)
        return digest.hexdigest()
    shutil.rmtree(temp_path, ignore_errors=True)
    temp_path.mkdir()
    for i, path in enumerate(chain([next(paths, None)], paths)):
        write([path] if path else [], temp_path / f"part-{i:05}.{output.format.name}")
    sync_folder(temp_path)
    return digest.hexdigest()


def _write(output: OutputSpec, on_write: OnWrite, shards: Iterable[Path], path: Path) -> None:
    with _ObservedFile(path, on_write) as file:
        output.format.assemble(shards, file, output.record_schema)
        file.flush()
        sync(file.fileno())


def _verified_path(workspace: Workspace, shard: Shard) -> Path:
    """Returns the shard's path. Raises CorruptShard unless its SHA-256 is as recorded."""
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

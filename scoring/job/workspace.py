"""The folder beside an output in which a job keeps its shards until the output is published.

A shard is written under a temporary name, synced and renamed; then the checkpoint records it.
A file that the checkpoint does not list is never read.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hsoftmax.scoring.errors import WorkspaceBusy

from .checkpoint import CheckpointStore, Shard


@dataclass(frozen=True)
class Workspace:
    """The paths in `OUTPUT.parts`, which one process holds at a time."""

    path: Path

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def assembled(self) -> Path:
        """The complete output before it is renamed into place."""
        return self.path / "assembled"

    @property
    def temp_assembled(self) -> Path:
        """The output while it is being written."""
        return self.path / "assembled.tmp"

    def shard(self, number: int) -> Path:
        return self.path / f"shard-{number:08}"

    def temp_shard(self, number: int, attempt: str = "") -> Path:
        """The file of a shard while it is being written.

        Each process that makes the same shard passes its own `attempt`.
        """
        return self.path / f"shard-{number:08}{attempt}.tmp"

    def attempts(self, number: int | None = None) -> list[Path]:
        """The temporary files that attempts left for one shard, or for all shards."""
        shard = "shard-*" if number is None else self.shard(number).name
        return list(self.path.glob(f"{shard}-*.tmp"))

    def clear(self) -> None:
        """Deletes everything but the lock."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()


def workspace_path(output: Path) -> Path:
    return output.with_name(output.name + ".parts")


@contextmanager
def lock_workspace(output: Path) -> Iterator[Workspace]:
    """Locks the output's workspace until the block ends, and creates it if there is none.

    Raises:
        WorkspaceBusy: another process holds it.
    """
    path = workspace_path(output)
    path.mkdir(exist_ok=True)
    with (path / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceBusy(f"{output}: expected no other run at it, got one") from None
        yield Workspace(path)


def remove_workspace(workspace: Workspace) -> None:
    """Deletes the workspace of a finished job.

    If this is interrupted, the published output still marks the job as finished.
    """
    with ThreadPoolExecutor() as pool:  # freeing a large file's blocks takes time; do several
        list(pool.map(Path.unlink, workspace.path.glob("shard-*")))
    shutil.rmtree(workspace.path)


def remove_temp_files(output: Path) -> None:
    """Deletes the temporary files of a job that no process runs; resumption makes them again."""
    for path in workspace_path(output).glob("*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_temp_file(path: Path, parts: Iterable[bytes]) -> tuple[int, str]:
    """Writes the parts to a temporary file. Returns its (size, SHA-256)."""
    size, digest = 0, hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def sync_and_rename(temp_path: Path, path: Path) -> None:
    """Syncs a temporary file to the disk and gives it its final name."""
    sync_file(temp_path)
    rename_durably(temp_path, path)


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        sync(file.fileno())


def intact_shards(workspace: Workspace, checkpoint: CheckpointStore) -> list[Shard]:
    """Returns the recorded shards up to the first whose file is missing or has another size.

    That shard and all after it are dropped from the checkpoint.
    """
    shards = checkpoint.shards()
    for shard in shards:
        path = workspace.shard(shard.number)
        if not path.is_file() or path.stat().st_size != shard.size:
            checkpoint.forget(shard.number)
            return shards[: shard.number]
    return shards


def rename_durably(temp_path: Path, path: Path) -> None:
    """Renames a synced file and syncs the folder, so that the name survives a power failure."""
    temp_path.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Syncs the names in a folder to the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        sync(folder)
    finally:
        os.close(folder)


def sync(descriptor: int) -> None:
    os.fsync(descriptor)

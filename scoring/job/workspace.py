"""The folder beside an output in which a job keeps its shards until they are all there.

A shard is written aside, synced, renamed; then the ledger records it. Nothing in here is read
before the ledger says that it is whole.
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

from hsoftmax.scoring.errors import CallError

from .checkpoint import CheckpointStore, Shard


@dataclass(frozen=True)
class Workspace:
    """`OUTPUT.parts`, held by one process."""

    path: Path

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def assembled(self) -> Path:
        """The output before it has its name."""
        return self.path / "assembled"

    @property
    def aside_of_assembled(self) -> Path:
        """The output before all of it is there."""
        return self.path / "assembled.tmp"

    def shard(self, number: int) -> Path:
        return self.path / f"shard-{number:08}"

    def aside(self, number: int, attempt: str = "") -> Path:
        """A shard before it has its name; several may be at it, each with its own attempt."""
        return self.path / f"shard-{number:08}{attempt}.tmp"

    def attempts(self, number: int | None = None) -> list[Path]:
        """What lies aside of a shard's attempts, or of all shards'."""
        shard = "shard-*" if number is None else self.shard(number).name
        return list(self.path.glob(f"{shard}-*.tmp"))

    def clear(self) -> None:
        """Nothing but the lock."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()


def workspace_path(output: Path) -> Path:
    return output.with_name(output.name + ".parts")


@contextmanager
def lock_workspace(output: Path) -> Iterator[Workspace]:
    """The output's workspace. Raises CallError if another process is at it."""
    path = workspace_path(output)
    path.mkdir(exist_ok=True)
    with (path / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CallError(f"{output}: expected no other run at it, got one") from None
        yield Workspace(path)


def remove_workspace(workspace: Workspace) -> None:
    """All of it, of a job that is finished: its output says so, whatever is left here."""
    with ThreadPoolExecutor() as pool:  # what is freed is freed on the thread that asked for it
        list(pool.map(Path.unlink, workspace.path.glob("shard-*")))
    shutil.rmtree(workspace.path)


def write_aside(aside: Path, parts: Iterable[bytes]) -> tuple[int, str]:
    """(size, SHA-256) of what is now in a file that does not count yet."""
    size, digest = 0, hashlib.sha256()
    with aside.open("wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def sync_and_rename(aside: Path, path: Path) -> None:
    """Let what was written aside be in place, and on the disk."""
    sync_file(aside)
    place(aside, path)


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        sync(file.fileno())


def intact_shards(workspace: Workspace, checkpoint: CheckpointStore) -> list[Shard]:
    """The finished shards up to the first whose file is not there; that and the rest are undone."""
    shards = checkpoint.shards()
    for shard in shards:
        path = workspace.shard(shard.number)
        if not path.is_file() or path.stat().st_size != shard.size:
            checkpoint.forget(shard.number)
            return shards[: shard.number]
    return shards


def place(aside: Path, path: Path) -> None:
    """Give a synced file its name, for good."""
    aside.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """What is in it by name is so for good."""
    folder = os.open(path, os.O_RDONLY)
    try:
        sync(folder)
    finally:
        os.close(folder)


def sync(descriptor: int) -> None:
    os.fsync(descriptor)

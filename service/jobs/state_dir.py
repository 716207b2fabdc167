"""Layout of the state folder, and its default location.

jobs.sqlite          database of files and batches
reserve              room for changes on a full disk
lock                 locked by the one process that executes jobs
uploads/             uploads in progress
files/<id><.ext>     uploaded files
jobs/<id>/           a job's duplicate ids, shards and outputs
rollouts/<name>.json the rollout of a model that has none in the repository
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from hsoftmax.service.errors import StartError
from hsoftmax.service.settings import Settings


@dataclass(frozen=True)
class StateDir:
    """Paths in the state folder. The database stores file paths relative to this folder."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "jobs.sqlite"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    @property
    def rollouts(self) -> Path:
        return self.folder / "rollouts"

    def job_dir(self, id: str) -> Path:
        return self.jobs / id

    def relative_job_dir(self, id: str) -> str:
        """Return a job's folder as the database stores it."""
        return str(self.job_dir(id).relative_to(self.folder))

    def output(self, id: str, extension: str) -> Path:
        """Return the path of a job's output file."""
        return self.job_dir(id) / f"output{extension}"

    def duplicate_ids(self, id: str) -> Path:
        """Return the path of the list of rows whose id an earlier row has."""
        return self.job_dir(id) / "survey.npy"

    def make(self) -> None:
        """Create the folders. Only the user of this process has access to them."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.uploads, self.files, self.jobs):
            folder.mkdir(mode=0o700, exist_ok=True)


def find_state_dir(settings: Settings) -> StateDir:
    """Return the folder of the settings, or the repository's folder under XDG_STATE_HOME.

    Raises:
        StartError: the settings name a database, but no folder of files.
    """
    if isinstance(settings.state, SecretStr):
        return StateDir(expect_files(settings.state_files))
    if settings.state is not None:
        return StateDir(settings.state)
    configured = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = configured if configured.is_absolute() else Path("~/.local/state").expanduser()
    where = settings.repository
    identity = where.resolve() if isinstance(where, Path) else where
    name = hashlib.sha256(str(identity).encode()).hexdigest()[:16]
    return StateDir(base / "hsoftmax" / name)


def expect_files(folder: Path | None) -> Path:
    """Return the folder of files beside a database. Raises StartError if there is none."""
    if folder is None:
        raise StartError(
            "state_files: expected a folder that all replicas see, as --state is a database, "
            "got none"
        )
    return folder


def is_writable(state_dir: StateDir) -> bool:
    """True if the folder is writable, or can be created."""
    folder = state_dir.folder.absolute()
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)

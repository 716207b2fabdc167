"""The state folder: what is where in it, and which one it is if nobody says.

jobs.sqlite          files and batches, as rows
lock                 held by the one process that carries out jobs
uploads/             files that are still arriving
files/<id><.ext>     files that have arrived
jobs/<id>/           a job's survey, shards and outputs
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hsoftmax.service.settings import Settings


@dataclass(frozen=True)
class StateDir:
    """Paths; a file is known by its path from here."""

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

    def job_dir(self, id: str) -> Path:
        return self.jobs / id

    def output(self, id: str, extension: str) -> Path:
        """Where a job's output will be."""
        return self.job_dir(id) / f"output{extension}"

    def duplicate_ids(self, id: str) -> Path:
        return self.job_dir(id) / "survey.npy"

    def make(self) -> None:
        """The folders, which only this user may enter."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.uploads, self.files, self.jobs):
            folder.mkdir(mode=0o700, exist_ok=True)


def find_state_dir(settings: Settings) -> StateDir:
    """The folder that is set, or one for the repository where a user's state belongs."""
    if settings.state is not None:
        return StateDir(settings.state)
    xdg_state_home = os.environ.get("XDG_STATE_HOME", "")
    home = (
        Path(xdg_state_home)
        if Path(xdg_state_home).is_absolute()
        else Path("~/.local/state").expanduser()
    )
    name = hashlib.sha256(str(settings.repository.resolve()).encode()).hexdigest()[:16]
    return StateDir(home / "hsoftmax" / name)


def is_writable(state_dir: StateDir) -> bool:
    """Whether the folder is, or could be made, here."""
    folder = state_dir.folder.absolute()
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)

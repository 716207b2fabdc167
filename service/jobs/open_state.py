"""Opens the database and finds the folder of files that the settings `state*` name.

With a folder as `state`, both are in it. With the URL of a database, the files are in
`state_files`, a folder that all replicas see.
"""

from pydantic import SecretStr

from hsoftmax.service.errors import JobsUnavailable, StartError
from hsoftmax.service.settings import Settings

from .database import Database
from .sqlite_database import SqliteDatabase
from .state_dir import StateDir, find_state_dir

_SCHEMES = ("postgresql", "postgres")


class StateStore:
    """The place of files and jobs. Nothing is created or connected before `open`.

    Attributes:
        state_dir: the folder of files
        shared: the database is one for several replicas

    Raises:
        StartError: the settings do not fit together, or a library is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self.state_dir: StateDir = find_state_dir(settings)
        self._url = settings.state if isinstance(settings.state, SecretStr) else None
        self.shared = self._url is not None
        if self._url is None:
            if settings.state_files is not None:
                raise StartError(
                    "state_files: expected none, as files are in the folder of --state, got "
                    f"{str(settings.state_files)!r}"
                )
        else:
            expect_url(self._url.get_secret_value())

    def exists(self) -> bool:
        """True if there may be jobs, so that the job thread has to look for them."""
        return self.shared or self.state_dir.database.exists()

    def open(self) -> Database:
        """Open the database and create the folders.

        Raises:
            OSError, sqlite3.Error: a folder or a file cannot be created.
            JobsUnavailable: the database does not answer; NewerSchema: it is a newer version's.
        """
        self.state_dir.make()
        if self._url is None:
            return SqliteDatabase(self.state_dir.database)
        from .postgres_database import PostgresDatabase
        from .postgres_url import parse_url

        return PostgresDatabase(parse_url(self._url.get_secret_value()))

    def reason_of(self, error: JobsUnavailable) -> str:
        """Return the cause of an error for the log, without credentials."""
        if not self.shared:
            return str(error)
        from .postgres_database import reason_of

        return reason_of(error)


def expect_url(url: str) -> None:
    """Raise StartError unless the URL names a PostgreSQL database, and its libraries are there."""
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise StartError(
            "state: expected a folder or postgresql://user@host/database, "
            f"got a URL that begins with {scheme[:30]}://"
        )
    try:
        from .postgres_url import parse_url
    except ImportError as error:
        raise StartError(
            f"state: expected the package {error.name} for postgresql://, got none: "
            "pip install 'hsoftmax[postgres]'"
        ) from None
    parse_url(url)

"""A file of keys that is read again when it changes, so that keys are rotated without a restart.

The file is UTF-8 with one entry a line. A file that is broken or missing leaves the old keys.
"""

from pathlib import Path
from time import monotonic

from hsoftmax.bundle import NotRegularFile, TextFileError, expect_regular, read_lines
from hsoftmax.service.errors import StartError
from hsoftmax.service.logging import Log

from .key_entries import Keys, parse_lines

_CHECK_INTERVAL_S = 1.0


class KeyFile:
    """The keys of a file. An unreadable file leaves the old keys."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._checked_at = monotonic()
        self._failure = ""  # the reason in the last line of the log
        try:
            self._state: tuple[int, ...] = self._stat()
            self._keys = self._read()
        except OSError as error:
            raise StartError(f"api_keys_file: cannot be read: {error.strerror}") from None

    def keys(self) -> Keys:
        """Return the keys of the file, the same object until the file changes.

        They are at most a second old.
        """
        if monotonic() - self._checked_at >= _CHECK_INTERVAL_S:
            self._checked_at = monotonic()
            self._reload_if_changed()
        return self._keys

    def _reload_if_changed(self) -> None:
        try:
            state = self._stat()
            if state == self._state:
                return
            self._keys = self._read()
        except (OSError, StartError) as error:
            self._state = ()  # it is read again, as it may have been half written
            self._log_failure(str(error.strerror if isinstance(error, OSError) else error))
        else:
            self._state, self._failure = state, ""
            self._log.info("api_keys_read", keys=len(self._keys))

    def _log_failure(self, reason: str) -> None:
        """Log a failure once, however often the file is tried."""
        if reason != self._failure:
            self._failure = reason
            self._log.error("api_keys_unreadable", reason=reason)

    def _stat(self) -> tuple[int, ...]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _read(self) -> Keys:
        try:
            expect_regular(self._path)
        except NotRegularFile:
            raise StartError("api_keys_file: expected a regular file, got none") from None
        try:
            return parse_lines(read_lines(self._path, "api_keys_file"))
        except TextFileError as error:
            raise StartError(str(error)) from None

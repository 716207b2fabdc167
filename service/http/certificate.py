"""Follows the files of the TLS certificate and its key, so that a renewal needs no restart.

A pair that does not fit, or is half written, leaves the old one in use.
"""

import ssl
from pathlib import Path

from hsoftmax.service.logging import Log

_NO_PASSWORD = ""  # an encrypted key is an error, and no question at the terminal


class CertificateFiles:
    """The files of a certificate chain and its key in PEM; the key may be in the same file."""

    def __init__(self, certificate: Path, key: Path | None, log: Log) -> None:
        self._certificate = certificate
        self._key = key or certificate
        self._log = log
        self._state = self._stat()
        self._failure = ""  # the reason in the last line of the log

    def have_changed(self) -> bool:
        """Return True once for each new pair that fits; log one that does not fit."""
        try:
            state = self._stat()
            if state == self._state:
                return False
            self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except OSError as error:  # ssl.SSLError is one
            self._state = ()  # it is read again, as it may have been half written
            self._log_failure(getattr(error, "reason", None) or error.strerror or "unreadable")
            return False
        self._state, self._failure = state, ""
        self._log.info("certificate_read")
        return True

    def load_into(self, context: ssl.SSLContext) -> None:
        """Load the pair into a context, for the connections that come. Raises OSError."""
        context.load_cert_chain(self._certificate, self._key, _NO_PASSWORD)

    def read(self) -> tuple[bytes, bytes]:
        """Return the key and the certificate chain. Raises OSError."""
        return self._key.read_bytes(), self._certificate.read_bytes()

    def _log_failure(self, reason: str) -> None:
        if reason != self._failure:
            self._failure = reason
            self._log.error("certificate_unreadable", reason=reason)

    def _stat(self) -> tuple[int, ...]:
        stats = (path.stat() for path in (self._certificate, self._key))
        return tuple(n for one in stats for n in (one.st_ino, one.st_size, one.st_mtime_ns))

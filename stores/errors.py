"""Errors of stores. Their text never has the library's, which may show signatures and addresses.

StoreError (models.UserError)
├── StoreUnavailable     the store does not answer now; the same call may succeed later
├── ObjectMissing        there is no such object or bucket
├── ObjectExists         there is an object already, where a new one is to be
└── UrlError             the address itself is wrong
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from hsoftmax.models.errors import UserError

_STATUS = re.compile(r"\bstatus(?: code:)?:? (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z]{1,40})</Code>")
_METADATA_SERVERS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
_NO_CREDENTIALS = ("Missing", "must be specified", *_METADATA_SERVERS)
_WRONG_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
     "AuthenticationFailed", "TokenRefreshRequired"}
)  # fmt: skip


class StoreError(UserError):
    """The store, or what is in it, is not as expected."""


class StoreUnavailable(StoreError):
    """The store does not answer, or not in time."""


class ObjectMissing(StoreError):
    """There is no such object or bucket."""


class ObjectExists(StoreError):
    """There is an object already, where a new one is to be."""


class UrlError(StoreError):
    """The address cannot be that of a store."""

    exit_code: ClassVar[int] = 2


@contextmanager
def store_errors(place: object) -> Iterator[None]:
    """Raise StoreError in place of the library's errors; `place` is what is read or written."""
    import obstore.exceptions as library

    try:
        yield
    except FileNotFoundError:
        raise ObjectMissing(f"{place}: expected it in the store, got none") from None
    except (library.PermissionDeniedError, library.UnauthenticatedError) as error:
        raise _refusal(place, str(error)) from None
    except library.AlreadyExistsError:
        raise ObjectExists(f"{place}: expected none yet, got one") from None
    except library.PreconditionError:
        raise StoreUnavailable(f"{place}: expected an object at rest, got a change") from None
    except (library.BaseError, ValueError, OSError) as error:
        if isinstance(error, StoreError):
            raise
        raise _from_text(place, str(error)) from None


def _refusal(place: object, text: str) -> StoreError:
    """Return the error for a refusal, of whose text the code alone is shown."""
    code = _CODE.search(text)
    if code and code[1] in _WRONG_CREDENTIALS:
        return StoreError(f"{place}: expected valid credentials, got {code[1]}")
    got = f" ({code[1]})" if code else ""
    return StoreError(f"{place}: expected credentials that may do this, got a refusal{got}")


def _from_text(place: object, text: str) -> StoreError:
    """Return the error for a text of the library, of which a code and a status alone are shown."""
    code, status = _CODE.search(text), _STATUS.search(text)
    if code and code[1] in _WRONG_CREDENTIALS:
        return _refusal(place, text)
    if any(words in text.partition("\n")[0] for words in _NO_CREDENTIALS):
        return StoreError(
            f"{place}: expected credentials in the environment, such as AWS_ACCESS_KEY_ID, "
            "AZURE_STORAGE_ACCOUNT_NAME or GOOGLE_SERVICE_ACCOUNT, got none"
        )
    if "Unable to canonicalize" in text:
        return ObjectMissing(f"{place}: expected a folder, got none")
    if "BadScheme" in text:
        return StoreError(f"{place}: expected an https:// endpoint, got http://")
    if status and status[1] in ("401", "403"):
        return _refusal(place, text)
    if status and status[1] == "404":
        return ObjectMissing(f"{place}: expected it in the store, got none")
    if status:
        reason = f"status {status[1]}" + (f" ({code[1]})" if code else "")
        kind = StoreUnavailable if status[1][0] == "5" or status[1] == "429" else StoreError
        return kind(f"{place}: expected the store's answer, got {reason}")
    late = "timed out" in text or "TimedOut" in text
    reason = "none in time" if late else "no whole answer"
    return StoreUnavailable(f"{place}: expected the store's answer, got {reason}")

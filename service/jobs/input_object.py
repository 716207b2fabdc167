"""Finds the object in a store that a job reads, at submission and again when the job downloads it.

The job keeps its size and the store's tag of its content, so that a change between the two is seen.
"""

from dataclasses import dataclass

from hsoftmax.service.errors import (
    InvalidQuery,
    StartError,
    StoreDown,
    TooLarge,
    UnknownFile,
)
from hsoftmax.service.logging import Log
from hsoftmax.service.settings import Settings
from hsoftmax.stores.errors import ObjectMissing, StoreError, StoreUnavailable
from hsoftmax.stores.url import StoreUrl


@dataclass(frozen=True)
class InputObject:
    """An object that a job reads, as it was when the job was made.

    Attributes:
        tag: the store's ETag, or the time of the object's last change
    """

    url: str
    size: int
    tag: str


def find_input_object(url: StoreUrl, max_bytes: int, log: Log) -> InputObject:
    """Return the object at the address. A store that hangs fails in seconds.

    Raises:
        UnknownFile: there is none.
        TooLarge: it has more than `max_bytes`.
        StoreDown: the store does not answer.
        InvalidQuery: the store refuses to show it; the log has the reason.
    """
    from hsoftmax.stores.objects import ObjectStore

    try:
        found = ObjectStore(url.parent, is_patient=False).head(url.name)
    except ObjectMissing:
        raise UnknownFile(f"input_url: expected an object at {url}, got none") from None
    except StoreUnavailable as error:
        log.warning("job_store_failed", reason=str(error))
        raise StoreDown("input_url: expected the store to answer, got nothing") from None
    except StoreError as error:
        log.warning("job_store_failed", reason=str(error))
        raise InvalidQuery(
            "input_url: expected an object that this service may read, got a refusal of the store"
        ) from None
    if found.size > max_bytes:
        raise TooLarge(f"input_url: expected at most {max_bytes} bytes, got {found.size}")
    return InputObject(str(url), found.size, found.tag)


def expect_store_library(settings: Settings) -> None:
    """Raise StartError if jobs may use stores and the library for them is not installed."""
    if not settings.job_urls:
        return
    try:
        import hsoftmax.stores.objects  # noqa: F401
    except ModuleNotFoundError as error:
        raise StartError(
            f"job_urls: expected the package {error.name}, got none: pip install 'hsoftmax[stores]'"
        ) from None

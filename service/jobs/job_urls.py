"""Checks the addresses in stores that a job reads or writes against the setting `job_urls`.

Submission calls it. An address lies within an entry of the setting by whole parts of its path. It
has no `%`, no dots as a part, no user and no query, so no other spelling of an address leads out.
"""

from pathlib import Path
from typing import Literal

from hsoftmax.scoring import EXTENSIONS, extension_of
from hsoftmax.service.errors import Forbidden, InvalidQuery
from hsoftmax.service.settings import JOB_SCHEMES
from hsoftmax.stores.errors import UrlError
from hsoftmax.stores.url import StoreUrl, is_url, parse_url

Param = Literal["input_url", "output_url"]

_WRITABLE = tuple(scheme for scheme in JOB_SCHEMES if scheme != "https")
_INSTEAD: dict[Param, str] = {
    "input_url": "upload the file and give input_file_id",
    "output_url": "leave it out and read output_file_id",
}


def parse_job_url(param: Param, text: str, allowed: tuple[StoreUrl, ...]) -> StoreUrl:
    """Parse the address of an object that a job may read or write.

    Raises:
        Forbidden: it does not lie within an entry of `allowed`.
        InvalidQuery: it is not the address of an object.
    """
    if not allowed:
        raise Forbidden(
            f"{param}: expected none, as this service has no --job-urls, got one: {_INSTEAD[param]}"
        )
    url = _parse(param, text)
    if not any(url.is_within(entry) for entry in allowed):
        raise Forbidden(
            f"{param}: expected an address within those of --job-urls, got {url}: "
            f"ask the operator of this service to add it, or {_INSTEAD[param]}"
        )
    return url


def expect_known_format(url: StoreUrl) -> None:
    """Raise InvalidQuery unless the extension of an input is that of a format."""
    if extension_of(Path(url.name)) not in EXTENSIONS:
        known = ", ".join(EXTENSIONS)
        raise InvalidQuery(f"input_url: expected a name ending in {known}, got {url.name[-60:]!r}")


def _parse(param: Param, text: str) -> StoreUrl:
    schemes = JOB_SCHEMES if param == "input_url" else _WRITABLE
    scheme = text.partition("://")[0].lower()
    if is_url(text) and scheme not in schemes:
        wanted = ", ".join(f"{one}://" for one in schemes)
        raise InvalidQuery(f"{param}: expected {wanted}, got {scheme[:20]}://")
    try:
        url = parse_url(text)
    except UrlError as error:
        raise InvalidQuery(f"{param}: {str(error).removeprefix(f'{scheme}: ')}") from None
    if "%" in text:
        raise InvalidQuery(f"{param}: expected the path as it is in the store, got one with %")
    if not url.path or text.endswith("/"):
        raise InvalidQuery(f"{param}: expected the address of an object, got {url}")
    return url

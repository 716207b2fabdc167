"""`expires_after` of a file and `output_expires_after` of a job, as OpenAI's API has them."""

import msgspec

from hsoftmax.service.errors import InvalidQuery

MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 30 * 86_400
ANCHOR = "created_at"


class ExpiresAfter(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The time after which a file is removed, counted from its creation."""

    anchor: str
    seconds: int


def expiry_seconds(name: str, expires_after: ExpiresAfter) -> int:
    """Return the seconds from the creation of a file to its removal; `name` is the parameter's.

    Raises:
        InvalidQuery: another anchor, or a time out of the range of OpenAI's API.
    """
    if expires_after.anchor != ANCHOR:
        got = expires_after.anchor[:60]
        raise InvalidQuery(f"{name}.anchor: expected {ANCHOR!r}, got {got!r}")
    if not MIN_EXPIRY_S <= expires_after.seconds <= MAX_EXPIRY_S:
        raise InvalidQuery(
            f"{name}.seconds: expected {MIN_EXPIRY_S} to {MAX_EXPIRY_S}, "
            f"got {expires_after.seconds}"
        )
    return expires_after.seconds


def expiry_of_form(fields: dict[str, str]) -> int | None:
    """Return the seconds that the fields of a form ask for, or None if they ask for none.

    Raises:
        InvalidQuery: one of the two fields is missing or wrong.
    """
    anchor, seconds = (fields.get(f"expires_after[{one}]") for one in ("anchor", "seconds"))
    if anchor is None and seconds is None:
        return None
    if anchor is None or seconds is None:
        missing = "anchor" if anchor is None else "seconds"
        raise InvalidQuery(f"expires_after.{missing}: expected a value, got none")
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        raise InvalidQuery(f"expires_after.seconds: expected an integer, got {seconds[:60]!r}")
    return expiry_seconds("expires_after", ExpiresAfter(anchor=anchor, seconds=int(seconds)))

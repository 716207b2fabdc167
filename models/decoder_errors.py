"""The boundary around a decoder: turns every error of the decoder into the error of its format.

Decoders raise errors of many types for damaged bytes: UnicodeDecodeError, struct.error,
RecursionError and others, and a list of these types is never complete. A boundary therefore
catches all of them. It stands around the decoder's call alone, so that an error in the code behind
it is still reported as an error of the program.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import UserError

_MAX_REASON_CHARS = 200


@contextmanager
def decoding(to_error: Callable[[str], UserError]) -> Iterator[None]:
    """Raise `to_error(reason)` for any error that the body raises.

    Two kinds of errors pass: a UserError, which has its sentence already, and MemoryError. Callers
    bound the memory of a decoder by the length of its input, so a MemoryError is a fact about the
    machine, not about the input.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise to_error(reason_of(error)) from None


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_MAX_REASON_CHARS]

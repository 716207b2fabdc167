"""Converts trained weights into a verified bundle.

The public names come from `public`, which is imported at the first use of a name (PEP 562). Until
then `choices` can be imported without the libraries that the other modules need.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .public import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        # A module is imported by its own name: `public` may be waiting for it.
        if find_spec(f".{name}", __name__) is not None:
            return import_module(f".{name}", __name__)
        value = getattr(import_module(".public", __name__), name)
        globals()[name] = value
        return value

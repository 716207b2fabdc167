"""Bundles over HTTP: sessions over a repository, the /v1 routes, health and metrics.

The names of the package are those of `public`, which is imported when the first one is used
(PEP 562). Until then `settings` can be imported without the libraries that the rest needs.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .public import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        # A module of the package is not looked for in `public`, which may be about to import it.
        if find_spec(f".{name}", __name__) is not None:
            return import_module(f".{name}", __name__)
        value = getattr(import_module(".public", __name__), name)
        globals()[name] = value
        return value

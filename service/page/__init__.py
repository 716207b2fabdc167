"""The page at `/`: HTML, style sheets, scripts and an icon, which hold no data of any bundle.

The service sends these files as they are, to anyone. The page asks for a key if a route needs one.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

INDEX: Final = "index.html"

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}

# Every file of the page with its content type.
FILE_TYPES: Final[Mapping[str, str]] = {
    entry.name: _TYPES[extension]
    for entry in sorted(files(__package__).iterdir(), key=lambda entry: entry.name)
    for _, _, extension in [entry.name.rpartition(".")]
    if extension in _TYPES
}

# The path of every file. The index has relative links, so it is at `/` only.
PAGE_PATHS: Final = frozenset("/" if name == INDEX else f"/page/{name}" for name in FILE_TYPES)

"""Lines of text in many languages: messages of the gettext catalogues that a system has."""

import gettext
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

LOCALE = Path("/usr/share/locale")
_MIN_CHARS, _MAX_LINES = 20, 80  # of a line; of a language


def lines_by_language(folder: Path = LOCALE) -> dict[str, list[str]]:
    """Return some lines of each language of which there are catalogues, by the language's code."""
    found = {
        language.name: list(islice(_lines(language), _MAX_LINES))
        for language in sorted(folder.glob("*"))
        if language.is_dir()
    }
    return {name: lines for name, lines in found.items() if lines}


def _lines(language: Path) -> Iterator[str]:
    """Yield the distinct lines of the messages that are translated."""
    seen: set[str] = set()
    for path in sorted(language.glob("LC_MESSAGES/*.mo")):
        for text in _messages(path):
            for line in text.splitlines():
                if len(line) >= _MIN_CHARS and line not in seen:
                    seen.add(line)
                    yield line


def _messages(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
    except (OSError, ValueError, LookupError):  # a catalogue that is damaged or in an odd encoding
        return
    for source, text in catalogue._catalog.items():
        if source and text != source:  # the empty source has the description of the file
            yield text

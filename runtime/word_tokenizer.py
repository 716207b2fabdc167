"""Turns text into ids by a list of words: the id of a word is its place in the list.

`runtime.tokenizer` opens it for a file whose `kind` is `words`. It needs no further package.

A text is split into words in one of two ways:

* `spaces`: white space separates words, and everything else is a part of them.
* `english`: words are letters with inner apostrophes and hyphens, and numerals. `.`, `?`, `!` and
  the end of a paragraph end a sentence. Other punctuation, and notes in square brackets, are left
  out. The text itself need not end with a sentence: its last word may be the one to go on from.

The `english` way is that of the corpus of examples/state_of_the_union.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .tokens import EncodedText, TextRow, UnreadableText

_ABBREVIATION = re.compile(
    r"\b(Mr|Mrs|Ms|Messrs|Dr|Gen|Col|Capt|Lieut|Maj|Hon|St|Jr|Sr|No|Nos|Art|Sec|vs|[A-Z])\."
)
_NUMERAL = r"\d+(?:[,.]\d+)*\w*"
_WORD = r"[^\W\d_]+(?:['-][^\W\d_]+)*"
_LINE_ENDS = "[\\n\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029]+"  # those of str.splitlines
_IS_NUMERAL = re.compile(_NUMERAL)
_MAX_SHOWN_CHARS = 60


class _Description(BaseModel):
    """The content of the file.

    Attributes:
        lowercase: True if the words are in lower case, as the words of a text become
        unknown: the word that stands for words outside of the list; without it they are refused
        number: the word that stands for numerals, if one does
        sentence_end: the word that stands for the end of a sentence, if one does
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["words"]
    version: Literal[1] = 1
    lowercase: bool = False
    split: Literal["spaces", "english"] = "spaces"
    unknown: str | None = None
    number: str | None = None
    sentence_end: str | None = None
    words: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known = set(self.words)
        if len(known) < len(self.words):
            raise ValueError("words: expected each word once, got one twice")
        for field in ("unknown", "number", "sentence_end"):
            word = getattr(self, field)
            if word is not None and word not in known:
                raise ValueError(f"{field}: expected one of the words, got {_shown(word)}")
        if self.sentence_end is not None and self.split != "english":
            raise ValueError("sentence_end: expected split english beside it, got spaces")
        return self


@dataclass(frozen=True)
class WordTokenizer:
    """A list of words and the rules by which a text becomes some of them."""

    description: _Description

    def encode(self, row: TextRow) -> EncodedText:
        """Return the ids of a text's words, or of the words of a list, which are not split.

        Raises:
            UnreadableText: a word outside of the list, if none stands for such words.
        """
        words = self._split(row) if isinstance(row, str) else row
        ids = [self._id(word) for word in words]
        return EncodedText(ids, [0] * len(ids))

    def last_token(self) -> tuple[str, int]:
        """Return the last word of the list and its id."""
        return self.description.words[-1], len(self.description.words) - 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.description.words)}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Matches a word, or one of the words that stand for others, written as it is."""
        about = self.description
        special = filter(None, (about.unknown, about.number, about.sentence_end))
        odd = [re.escape(word) for word in special if not re.fullmatch(_WORD, word)]
        words = "|".join([*odd, _NUMERAL, _WORD])
        return re.compile(rf"(?P<word>{words})|(?P<stop>[.?!]+)|{_LINE_ENDS}")

    def _id(self, word: str) -> int:
        about = self.description
        if about.number is not None and _IS_NUMERAL.fullmatch(word):
            return self._ids[about.number]
        found = self._ids.get(word.lower() if about.lowercase else word)
        if found is not None:
            return found
        if about.unknown is None:
            raise UnreadableText(
                f"expected words of the tokenizer's list, got {_shown(word)}, which is not in it"
            )
        return self._ids[about.unknown]

    def _split(self, text: str) -> Iterator[str]:
        if self.description.split == "spaces":
            return iter(text.split())
        return self._split_english(_ABBREVIATION.sub(r"\1", _without_notes(text)))

    def _split_english(self, text: str) -> Iterator[str]:
        """Yield words; the end of a paragraph ends a sentence once the next one begins."""
        end = self.description.sentence_end
        ends = () if end is None else (end,)
        in_sentence = after_paragraph = False
        for match in self._pattern.finditer(text):
            if (word := match["word"]) is not None:
                if in_sentence and after_paragraph:
                    yield from ends
                yield word
                in_sentence, after_paragraph = word != end, False
            elif match["stop"] is None:
                after_paragraph = True
            elif in_sentence:
                yield from ends
                in_sentence = False


def read_word_tokenizer(content: str) -> WordTokenizer:
    """Read the text of a file.

    Raises:
        ValueError: with one sentence, if the content is no list of words.
    """
    try:
        return WordTokenizer(_Description.model_validate_json(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(where + first["msg"].removeprefix("Value error, ")) from None


def _without_notes(text: str) -> str:
    """Return the text with a space for each note in square brackets, in one pass over it."""
    parts, start = [], 0
    while (opening := text.find("[", start)) >= 0 and (closing := text.find("]", opening)) >= 0:
        parts.append(text[start:opening])
        start = closing + 1
    return " ".join([*parts, text[start:]])


def _shown(word: str) -> str:
    return repr(word[:_MAX_SHOWN_CHARS])

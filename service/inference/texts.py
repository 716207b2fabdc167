"""Turns the texts of a query into hidden states, before the query is planned.

The endpoint of an operation and the jobs call it. A short text takes a fraction of a millisecond
and is turned at once; long ones take their turn in a thread, one request at a time, so that they
delay other requests little.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec

from hsoftmax.featurizers import TextInput, featurize
from hsoftmax.models.arrays import Float32
from hsoftmax.runtime.weights_guard import WeightsChanged
from hsoftmax.scoring.stream.pipeline import RunInIdle
from hsoftmax.service.errors import BundleChanged, InvalidQuery, Overloaded, TooLarge
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

T = TypeVar("T")

_INLINE_CHARS = 2048  # that are turned in a few hundred microseconds
_MAX_PENDING = 64  # requests with long texts
_RETRY_AFTER_S = 1


class RunInTurn(Protocol):
    """Runs a function in a thread in its turn."""

    def __call__(self, function: Callable[[], T]) -> Awaitable[T]: ...


class TextQueue:
    """Runs the featurizer for long texts in a thread, one at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._pending = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Run the function in a thread in its turn. Raises Overloaded if too many wait."""
        if self._pending >= _MAX_PENDING:
            raise Overloaded("texts: as many as may be are waiting already", _RETRY_AFTER_S)
        return await self._run_in_turn(function)

    def runner_for(self, bundle: LoadedBundle) -> RunInIdle:
        """Return the function that runs a stream's parser, which makes hidden states of its rows.

        It raises BundleChanged if the file of the featurizer or of the encoder was changed.
        """

        async def run(function: Callable[[], T]) -> T:
            try:
                return await self._run_in_turn(function)
            except WeightsChanged as error:
                raise BundleChanged(f"{bundle.name}: {error}") from None

        return run

    async def _run_in_turn(self, function: Callable[[], T]) -> T:
        self._pending += 1
        try:
            async with self._lock:
                return await asyncio.to_thread(function)
        finally:
            self._pending -= 1


def is_hidden(query: Any) -> bool:  # noqa: ANN401  of any operation
    """Return True if the inputs of a query are numbers already, not texts or inputs by name."""
    inputs = getattr(query, "inputs", None)
    return not isinstance(inputs, dict) and not (
        isinstance(inputs, list) and inputs and _is_text(inputs[0])
    )


async def read_texts(query: Any, bundle: LoadedBundle, settings: Settings, queue: TextQueue) -> Any:  # noqa: ANN401
    """Return the query with hidden states in place of texts; other queries as they are.

    Raises:
        InvalidQuery: the bundle takes no text, or one of the texts is wrong.
        TooLarge: more rows than the limit.
        Overloaded: too many long texts wait.
    """
    rows = text_rows(query, bundle, settings)
    if rows is None:
        return query
    if is_short(rows):
        return _with_hidden(query, _hidden(rows, bundle))
    return _with_hidden(query, await queue.run(lambda: _hidden(rows, bundle)))


def read_texts_now(query: Any, bundle: LoadedBundle, settings: Settings) -> Any:  # noqa: ANN401
    """Do the same on the calling thread, for a job. Raises InvalidQuery, TooLarge."""
    rows = text_rows(query, bundle, settings)
    return query if rows is None else _with_hidden(query, _hidden(rows, bundle))


def text_rows(query: Any, bundle: LoadedBundle, settings: Settings) -> list[TextInput] | None:  # noqa: ANN401
    """Return the rows of a query of texts, all of them texts or words; None for numbers."""
    inputs = getattr(query, "inputs", None)
    if not isinstance(inputs, list) or is_hidden(query):
        return None
    if len(inputs) > settings.max_rows:
        raise TooLarge(f"inputs: expected at most {settings.max_rows} rows, got {len(inputs)}")
    if not bundle.takes_text:
        return None  # validation says what such a bundle takes
    for i, row in enumerate(inputs):
        words = [row] if isinstance(row, str) else row
        if not all(isinstance(word, str) for word in words):
            raise InvalidQuery(
                f"inputs row {i}: expected a text or a list of words, as in row 0, got numbers"
            )
    return inputs


def _is_text(row: object) -> bool:
    """Return True for a text or a list that begins with a word."""
    return isinstance(row, str) or (isinstance(row, list) and bool(row) and isinstance(row[0], str))


def is_short(rows: list[TextInput]) -> bool:
    """Return True for texts that are turned at once."""
    return _num_chars(rows) <= _INLINE_CHARS


def _num_chars(rows: list[TextInput]) -> int:
    return sum(len(row) if isinstance(row, str) else sum(map(len, row)) + len(row) for row in rows)


def _hidden(rows: list[TextInput], bundle: LoadedBundle) -> Float32:
    """Return the hidden states of the rows.

    Raises:
        InvalidQuery: the first wrong row.
        BundleChanged: the featurizer's file was changed in place.
    """
    assert bundle.featurizer is not None
    try:
        results = featurize(bundle.featurizer, rows)
    except WeightsChanged as error:
        raise BundleChanged(f"{bundle.name}: {error}") from None
    if results.errors:
        first = min(results.errors)
        raise InvalidQuery(f"inputs row {first}: {results.errors[first]}")
    return results.hidden


def _with_hidden(query: Any, hidden: Float32) -> Any:  # noqa: ANN401
    return msgspec.structs.replace(query, inputs=hidden)

"""Runs the encoder of a bundle: inputs by name, or texts, become hidden states.

The endpoint of an operation and the jobs call it before the query is planned. The engine runs the
batches of rows one after the other, so that a request has one place in its queue.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.errors import UserError
from hsoftmax.runtime.encoder import LoadedEncoder
from hsoftmax.runtime.encoder_batches import EncoderBatch, join_states, make_batches
from hsoftmax.runtime.encoder_inputs import EncoderRows, read_rows
from hsoftmax.service.engine import GraphCall
from hsoftmax.service.errors import InvalidQuery, TooLarge
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

from .cost import call_bytes
from .texts import RunInTurn, is_short, text_rows

T = TypeVar("T")

_INLINE_POSITIONS = 2048
_COST_PER_NUMBER = 16  # multiply-adds in the time to look up, add and activate one number

NamedInputs = Mapping[str, Sequence[object]]


class EncoderPlan(msgspec.Struct, frozen=True):
    """The calls of an encoder for the rows of one query.

    Attributes:
        calls: one for each batch, to be run by the engine
    """

    encoder: LoadedEncoder
    batches: list[EncoderBatch]
    calls: list[GraphCall]

    def hidden(self, outputs: Sequence[Sequence[Array]]) -> Float32:
        """Return the states of all rows, from the outputs of each call.

        Raises:
            InvalidQuery: a state is not finite.
        """
        states = [arrays[0] for arrays in outputs]
        return _checked(lambda: join_states(self.encoder.description, self.batches, states))


async def read_named_inputs(
    query: Any,  # noqa: ANN401  of any operation
    bundle: LoadedBundle,
    settings: Settings,
    run_in_turn: RunInTurn,
) -> NamedInputs | None:
    """Return the inputs of the bundle's encoder by name: those of the query, or of its texts.

    None is for queries of hidden states, and of texts for a featurizer.

    Raises:
        InvalidQuery: the bundle has no encoder, or its tokenizer cannot read one of the texts.
        TooLarge: more rows than the limit.
        Overloaded: too many long texts wait.
    """
    if (given := _given(query, bundle)) is not None:
        return given
    texts = _texts(query, bundle, settings)
    if texts is None:
        return None
    if is_short(texts):
        return _tokenized(texts, bundle)
    return await run_in_turn(lambda: _tokenized(texts, bundle))


def read_named_inputs_now(
    query: Any,  # noqa: ANN401  of any operation
    bundle: LoadedBundle,
    settings: Settings,
) -> NamedInputs | None:
    """Do the same on the calling thread, for a job. Raises InvalidQuery, TooLarge."""
    if (given := _given(query, bundle)) is not None:
        return given
    texts = _texts(query, bundle, settings)
    return None if texts is None else _tokenized(texts, bundle)


async def plan_in_turn(
    inputs: NamedInputs,
    bundle: LoadedBundle,
    settings: Settings,
    options: RequestOptions,
    run_in_turn: RunInTurn,
    *,
    isolated: bool,
) -> EncoderPlan:
    """Do what `plan_encoder` does, and do it in a thread for many positions. Raises Overloaded."""
    plan = partial(plan_encoder, inputs, bundle, settings, options, isolated=isolated)
    return plan() if _is_small(inputs) else await run_in_turn(plan)


def _is_small(inputs: NamedInputs) -> bool:
    """True for rows that are checked and cut into batches in less than a millisecond or two."""
    rows = (row for column in inputs.values() for row in column)
    return sum(len(row) if isinstance(row, list) else 1 for row in rows) <= _INLINE_POSITIONS


def plan_encoder(
    inputs: NamedInputs,
    bundle: LoadedBundle,
    settings: Settings,
    options: RequestOptions,
    *,
    isolated: bool,
) -> EncoderPlan:
    """Validate the rows and build the calls.

    Raises:
        InvalidQuery: rows that do not fit the inputs of the encoder.
        TooLarge: more rows or positions than the limits.
    """
    assert bundle.encoder is not None
    encoder = bundle.encoder
    for name, column in inputs.items():
        if len(column) > settings.max_rows:
            raise TooLarge(
                f"inputs.{name[:60]}: expected at most {settings.max_rows} rows, got {len(column)}"
            )
    rows = _checked(lambda: read_rows(encoder.description, inputs))
    _expect_positions(rows, settings)
    batches = make_batches(encoder.description, rows)
    calls = [_call(encoder, batch, bundle, options, isolated) for batch in batches]
    return EncoderPlan(encoder, batches, calls)


def cannot_run(call: GraphCall) -> InvalidQuery:
    """The error of rows at which the encoder's graph fails, such as too long ones."""
    longest = max((array.shape[1] for array in call.feeds.values() if array.ndim > 1), default=1)
    return InvalidQuery(
        f"inputs: expected rows that the encoder can run, got some of {longest} positions that it "
        "cannot"
    )


def _given(query: Any, bundle: LoadedBundle) -> NamedInputs | None:  # noqa: ANN401
    inputs = getattr(query, "inputs", None)
    if not isinstance(inputs, dict):
        return None
    if bundle.encoder is None:
        raise InvalidQuery(
            f"inputs: expected rows of {bundle.hidden_size} numbers, got inputs by name: "
            f"{bundle.name} has no encoder, so send hidden states, or export it with --encoder"
        )
    return inputs


def _texts(query: Any, bundle: LoadedBundle, settings: Settings) -> list[Any] | None:  # noqa: ANN401
    if bundle.encoder is None or bundle.encoder.tokenizer is None:
        return None
    return text_rows(query, bundle, settings)


def _tokenized(rows: list[Any], bundle: LoadedBundle) -> NamedInputs:
    assert bundle.encoder is not None
    tokenizer = bundle.encoder.tokenizer
    assert tokenizer is not None
    return _checked(lambda: tokenizer.inputs(rows))


def _checked(function: Callable[[], T]) -> T:
    """Run a function of the encoder; raise its error about the rows as InvalidQuery."""
    try:
        return function()
    except UserError as error:
        raise InvalidQuery(str(error)) from None


def _expect_positions(rows: EncoderRows, settings: Settings) -> None:
    if rows.num_positions > settings.max_tokens:
        raise TooLarge(
            f"inputs: expected at most {settings.max_tokens} positions in all rows, "
            f"got {rows.num_positions}"
        )


def _position_cost(encoder: LoadedEncoder, bundle: LoadedBundle) -> int:
    """Cost of one position: its products, and some steps with as many numbers as a state has."""
    return encoder.description.multiply_adds + _COST_PER_NUMBER * bundle.hidden_size


def _call(
    encoder: LoadedEncoder,
    batch: EncoderBatch,
    bundle: LoadedBundle,
    options: RequestOptions,
    isolated: bool,
) -> GraphCall:
    rows, longest = len(batch.rows), int(batch.lengths.max())
    states = 1 if encoder.description.position is None else longest
    values = rows * states * bundle.hidden_size
    return GraphCall(
        session=encoder.session,
        feeds=batch.feeds,
        rows=rows,
        cost=rows * longest * _position_cost(encoder, bundle),
        values=values,
        num_bytes=call_bytes(batch.feeds, values),
        priority=options.priority,
        timeout=options.timeout,
        isolated=isolated,
    )

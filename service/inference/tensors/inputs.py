"""Reads the rows of a request from its tensors: hidden states, an encoder's inputs, or texts.

The rows have the form of a query's `inputs`, so everything behind them is that of the operations.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from hsoftmax.bundle import Encoder, Port
from hsoftmax.models.arrays import Array
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.suggestions import did_you_mean

from .datatypes import BYTES, FLOATS, INTEGERS
from .tensor import Tensor, expect_accepted

HIDDEN, TEXT = "hidden", "text"
DATATYPE_OF_KIND = {"float32": "FP32", "float16": "FP16", "int8": "INT8", "int32": "INT32",
                    "int64": "INT64", "bool": "BOOL"}  # fmt: skip


def row_inputs(bundle: LoadedBundle) -> tuple[tuple[str, ...], ...]:
    """Return the sets of tensors that can give the rows of a bundle; a request has one of them."""
    if not bundle.hidden_size:
        return ()
    encoder = () if bundle.encoder is None else (_encoder_names(bundle.encoder.description),)
    return ((HIDDEN,), *encoder, *(((TEXT,),) if bundle.takes_text else ()))


def read_rows(tensors: Mapping[str, Tensor], bundle: LoadedBundle) -> Any:  # noqa: ANN401
    """Return the rows as a query's `inputs`: a matrix, lists by name, or a list of texts.

    Raises:
        InvalidQuery: no rows, rows of two kinds, or a tensor of another datatype or shape.
    """
    choices = row_inputs(bundle)
    given = [names for names in choices if any(name in tensors for name in names)]
    if len(given) != 1:
        expected = " or ".join(" and ".join(names) for names in choices)
        got = " and ".join(names[0] for names in given) or ", ".join(list(tensors)[:10]) or "none"
        raise InvalidQuery(f"inputs: expected the rows once, as {expected}, got {got[:200]}")
    if given[0] == (HIDDEN,):
        return read_numbers(tensors[HIDDEN])
    if given[0] == (TEXT,):
        return read_column(tensors[TEXT])
    assert bundle.encoder is not None
    return _read_encoder_inputs(tensors, bundle.encoder.description)


def expect_known(names: Iterable[str], known: Collection[str]) -> None:
    """Raise InvalidQuery for a name that is no input of the bundle."""
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            expected = ", ".join(known) or "none"
            raise InvalidQuery(f"inputs: expected {expected}, got {name[:60]!r}{hint}")


def read_numbers(tensor: Tensor) -> Array:
    """Return an array of floats. Raises InvalidQuery for a tensor of another datatype."""
    expect_accepted(tensor, FLOATS)
    assert not isinstance(tensor.data, list)
    return tensor.data


def read_column(tensor: Tensor) -> list[str]:
    """Return the texts of a tensor [rows] or [rows, 1]. Raises InvalidQuery."""
    expect_accepted(tensor, frozenset({BYTES}))
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ((), (1,)):
        raise InvalidQuery(f"{tensor.name}: expected shape [rows], got {list(tensor.shape)}")
    if not tensor.data:
        raise InvalidQuery(f"{tensor.name}: expected at least one row, got none")
    return texts_of(tensor)


def texts_of(tensor: Tensor) -> list[str]:
    """Return the elements of BYTES as text. Raises InvalidQuery for one that is not UTF-8."""
    assert isinstance(tensor.data, list)
    try:
        return [element.decode() for element in tensor.data]
    except UnicodeDecodeError:
        raise InvalidQuery(f"{tensor.name}: expected texts in UTF-8, got another one") from None


def _encoder_names(encoder: Encoder) -> tuple[str, ...]:
    return tuple(port.name for port in encoder.row_inputs)


def _read_encoder_inputs(tensors: Mapping[str, Tensor], encoder: Encoder) -> dict[str, list[Any]]:
    missing = [name for name in _encoder_names(encoder) if name not in tensors]
    if missing:
        expected = ", ".join(_encoder_names(encoder))
        raise InvalidQuery(f"inputs: expected {expected}, got no {missing[0]}")
    lengths = _lengths(tensors, encoder)
    return {port.name: _encoder_rows(tensors[port.name], port, lengths)
            for port in encoder.row_inputs}  # fmt: skip


def _encoder_rows(tensor: Tensor, port: Port, lengths: list[int] | None) -> list[Any]:
    expect_accepted(tensor, accepted_by(port))
    assert not isinstance(tensor.data, list)
    if not tensor.shape:
        raise InvalidQuery(f"{tensor.name}: expected rows, got a single number")
    rows: list[Any] = tensor.data.tolist()
    if lengths is None or len(port.shape) < 2 or not isinstance(port.shape[1], str):
        return rows
    if len(lengths) != len(rows) or max(lengths, default=0) > tensor.data.shape[1]:
        raise InvalidQuery(f"{tensor.name}: expected {len(lengths)} rows of the mask's positions")
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def accepted_by(port: Port) -> frozenset[str]:
    """Return the datatypes that an encoder's input takes."""
    kind = np.dtype(port.dtype).kind
    return FLOATS if kind == "f" else frozenset({"BOOL"}) if kind == "b" else INTEGERS


def _lengths(tensors: Mapping[str, Tensor], encoder: Encoder) -> list[int] | None:
    """Return the positions of each row, if the request has a mask or the lengths of its rows."""
    if encoder.lengths is not None and encoder.lengths in tensors:
        tensor = tensors[encoder.lengths]
        expect_accepted(tensor, INTEGERS)
        assert not isinstance(tensor.data, list)
        lengths: list[int] = tensor.data.ravel().tolist()
        if min(lengths, default=0) < 0:
            raise InvalidQuery(f"{tensor.name}: expected no negative length, got {min(lengths)}")
        return lengths
    if encoder.mask is not None and encoder.mask in tensors:
        return _lengths_of_mask(tensors[encoder.mask])
    return None


def _lengths_of_mask(tensor: Tensor) -> list[int]:
    expect_accepted(tensor, INTEGERS | FLOATS | {"BOOL"})
    mask = tensor.data
    if isinstance(mask, list) or mask.ndim != 2:
        raise InvalidQuery(f"{tensor.name}: expected [rows, positions], got {list(tensor.shape)}")
    lengths = np.count_nonzero(mask, axis=1)
    if not np.array_equal(mask, np.arange(mask.shape[1]) < lengths[:, None]):
        raise InvalidQuery(f"{tensor.name}: expected ones and then zeros in each row, got others")
    found: list[int] = lengths.tolist()
    return found

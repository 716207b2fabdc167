"""Source `fairseq`: the `AdaptiveSoftmax` of a fairseq decoder, tied to its embedding or not.

Untied: head.weight [shortlist + tails, H]; tail.i.0.weight [width, H], tail.i.2.weight [size,
width] (1 is the dropout between them). Tied: head.word_proj.weight [shortlist, H], or
head.word_proj.0.weight [width, H] and .1.weight [shortlist, width]; head.class_proj.weight
[tails, H]. A projection tied to the embedding's is stored as [H, width]. fairseq's own layers have
no biases; those of a module that was changed are used, under the name of the weight that they
belong to.

A file without `version` is of an older fairseq, which reads the tails' log p one row of the head
earlier. Today's fairseq refuses such files, and so does this source.
"""

import re
from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import ProjectedLayer, adaptive_softmax
from hsoftmax.models.arrays import Array, expect_shape
from hsoftmax.models.projected import joined_bias

from .adaptive import checked_source_model
from .named_tensors import Harmless, NamedTensors, named_tensors
from .source import SourceModel, SourceOptions
from .state_dict import numbered, select_prefix

_OWN_NAMES = re.compile(
    r"(^|\.)((head(\.word_proj(\.[01])?|\.class_proj)?|tail\.\d+\.[02])\.(weight|bias)|version"
    r"|embed_tokens\.embeddings\.\d+\.1\.weight)$"
)
_HARMLESS: Harmless = {r"head\._float_tensor": "an empty buffer that shows the device"}


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the decoder's softmax; `options.cutoffs`, if given, must equal those of the shapes."""
    with named_tensors(path, options, _is_own, _HARMLESS) as state:
        prefix = select_prefix(
            state, "tail.0.2.weight", "tail.0.0.weight", path=path, options=options
        )
        weights = numbered(state, f"{prefix}tail.", ".2.weight", path=path)
        head = _head(state, f"{prefix}head.", len(weights), path)
        tails = [
            adaptive_softmax.build_projected(
                f"tail {i}",
                weight,
                state.get(f"{prefix}tail.{i}.2.bias"),
                _projection(state, prefix, i, head.hidden_size, path),
                projection_bias=state.get(f"{prefix}tail.{i}.0.bias"),
            )
            for i, weight in enumerate(weights)
        ]
        _expect_version(state, prefix, path)
        return checked_source_model(adaptive_softmax.build(head, tails), path, options)


def _is_own(name: str) -> bool:
    return _OWN_NAMES.search(name) is not None


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    if not any(name.endswith("tail.0.2.weight") for name in names):
        return None
    is_tied = any(name.endswith("head.class_proj.weight") for name in names)
    return f"a fairseq AdaptiveSoftmax, {'tied to its embedding' if is_tied else 'untied'}"


def _expect_version(state: NamedTensors, prefix: str, path: Path) -> None:
    if state.get(f"{prefix}version") is None:
        raise SourceError(
            f"{path.name}: expected {prefix}version, got none: models of older fairseq versions, "
            "which lack it, number the tails differently; if this one is newer, add it, of value 1"
        )


def _head(state: NamedTensors, prefix: str, num_tails: int, path: Path) -> ProjectedLayer:
    build = adaptive_softmax.build_projected
    if f"{prefix}weight" in state:
        return build("head", state[f"{prefix}weight"], state.get(f"{prefix}bias"))
    if f"{prefix}class_proj.weight" not in state:
        raise SourceError(
            f"{path.name}: expected {prefix}weight or {prefix}class_proj.weight, got none"
        )
    words, word_bias = _words(state, f"{prefix}word_proj.", path)
    classes, class_bias = (state.get(f"{prefix}class_proj.{part}") for part in ("weight", "bias"))
    assert classes is not None, "checked above"
    if words.ndim != 2 or classes.shape != (num_tails, words.shape[1]):
        raise SourceError(
            f"{path.name}: {prefix}class_proj.weight: expected [{num_tails}, {words.shape[-1]}], "
            f"got {list(classes.shape)}"
        )
    bias = _joined(word_bias, len(words), class_bias, len(classes))
    return build("head", np.concatenate([words, classes]), bias)


def _joined(
    first: Array | None, first_size: int, second: Array | None, second_size: int
) -> Array | None:
    """Join two biases, of which a layer without has zeros; return None if neither exists."""
    if first is None and second is None:
        return None
    parts = [(first, (first_size,)), (second, (second_size,))]
    for bias, shape in parts:
        if bias is not None:
            expect_shape("head bias", bias, shape)
    return np.concatenate([np.zeros(shape) if bias is None else bias for bias, shape in parts])


def _words(state: NamedTensors, prefix: str, path: Path) -> tuple[Array, Array | None]:
    """Return [shortlist, H] and a bias; a projection of the shortlist only is multiplied in."""
    if f"{prefix}weight" in state:
        return state[f"{prefix}weight"], state.get(f"{prefix}bias")
    missing = [name for name in (f"{prefix}0.weight", f"{prefix}1.weight") if name not in state]
    if missing:
        raise SourceError(f"{path.name}: expected {prefix}weight, got neither it nor {missing[0]}")
    projection, rows = state[f"{prefix}0.weight"], state[f"{prefix}1.weight"]
    if projection.ndim != 2 or rows.shape[1:] != projection.shape[:1]:
        raise SourceError(
            f"{path.name}: {prefix}1.weight: expected [shortlist, {len(projection)}], "
            f"got {list(rows.shape)}"
        )
    bias, projection_bias = state.get(f"{prefix}1.bias"), state.get(f"{prefix}0.bias")
    if projection_bias is not None:
        expect_shape(f"{prefix}0.bias", projection_bias, projection.shape[:1])
        bias = joined_bias(f"{prefix}1", rows, bias, projection_bias)
    product: Array = rows.astype(np.float64) @ projection.astype(np.float64)
    return product, bias


def _projection(
    state: NamedTensors, prefix: str, tail_number: int, hidden_size: int, path: Path
) -> Array:
    """Return [width, H]; a projection tied to the embedding is stored as [H, width].

    Only a softmax with a tied head has those. The shape shows if one is tied, unless it is square.
    """
    name = f"{prefix}tail.{tail_number}.0.weight"
    if name not in state:
        raise SourceError(f"{path.name}: expected {name}, got none")
    stored, width = state[name], state[f"{prefix}tail.{tail_number}.2.weight"].shape[-1]
    if f"{prefix}head.class_proj.weight" not in state:
        return stored
    is_square = stored.shape == (hidden_size, hidden_size)
    is_tied = (
        _is_embedding_projection(state, prefix, tail_number, stored, path)
        if is_square
        else (stored.shape == (hidden_size, width))
    )
    return stored.T if is_tied else stored


def _is_embedding_projection(
    state: NamedTensors, prefix: str, tail_number: int, stored: Array, path: Path
) -> bool:
    decoder = prefix.removesuffix("adaptive_softmax.")
    name = f"{decoder}embed_tokens.embeddings.{tail_number + 1}.1.weight"
    embedding = state.get(name)
    if embedding is None:
        raise SourceError(
            f"{path.name}: expected {name}, which shows if the square "
            f"{prefix}tail.{tail_number}.0.weight is tied to it and so stored transposed, got none"
        )
    return np.array_equal(embedding, stored)

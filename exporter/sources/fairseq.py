"""Source `fairseq`: the `AdaptiveSoftmax` of a fairseq decoder, tied to its embedding or not.

Untied: head.weight [shortlist + tails, H]; tail.i.0.weight [width, H], tail.i.2.weight [size,
width] (1 is the dropout between them). Tied: head.word_proj.weight [shortlist, H], or
head.word_proj.0.weight [width, H] and .1.weight [shortlist, width]; head.class_proj.weight
[tails, H]. A projection tied to the embedding's is stored as [H, width]. There are no biases.
"""

import re
from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import ProjectedLayer, adaptive_softmax
from hsoftmax.models.arrays import Array

from .adaptive import checked_source_model
from .detection import contained_names
from .source import SourceModel, SourceOptions
from .state_dict import numbered, read_state, sole_prefix

_NAMES = re.compile(
    r"(^|\.)(head\.(weight|word_proj\.([01]\.)?weight|class_proj\.weight)|tail\.\d+\.[02]\.weight"
    r"|embed_tokens\.embeddings\.\d+\.1\.weight)$"
)


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the decoder's softmax; `options.cutoffs`, if given, must equal those of the shapes."""
    state = read_state(path, lambda name: _NAMES.search(name) is not None)
    prefix = sole_prefix(state, "tail.0.2.weight", "tail.0.0.weight", path=path)
    head = _head(state, f"{prefix}head.", path)
    weights = numbered(state, f"{prefix}tail.", ".2.weight", path=path)
    tails = [
        adaptive_softmax.build_projected(
            f"tail {i}", weight, None, _projection(state, prefix, i, head.hidden_size, path)
        )
        for i, weight in enumerate(weights)
    ]
    return checked_source_model(adaptive_softmax.build(head, tails), path, options)


def detect(path: Path) -> str | None:
    """Return a description of the file if it has this format, else None."""
    names = contained_names(path)
    if not any(name.endswith("tail.0.2.weight") for name in names):
        return None
    is_tied = any(name.endswith("head.class_proj.weight") for name in names)
    return f"a fairseq AdaptiveSoftmax, {'tied to its embedding' if is_tied else 'untied'}"


def _head(state: dict[str, Array], prefix: str, path: Path) -> ProjectedLayer:
    if f"{prefix}weight" in state:
        return adaptive_softmax.build_projected("head", state[f"{prefix}weight"])
    if f"{prefix}class_proj.weight" not in state:
        raise SourceError(
            f"{path.name}: expected {prefix}weight or {prefix}class_proj.weight, got none"
        )
    words, classes = _words(state, f"{prefix}word_proj.", path), state[f"{prefix}class_proj.weight"]
    if words.ndim != 2 or classes.ndim != 2 or words.shape[1] != classes.shape[1]:
        raise SourceError(
            f"{path.name}: {prefix}class_proj.weight: expected [tails, {words.shape[-1]}], "
            f"got {list(classes.shape)}"
        )
    return adaptive_softmax.build_projected("head", np.concatenate([words, classes]))


def _words(state: dict[str, Array], prefix: str, path: Path) -> Array:
    """Return [shortlist, H]; a projection of the shortlist only is multiplied in."""
    if f"{prefix}weight" in state:
        return state[f"{prefix}weight"]
    missing = [name for name in (f"{prefix}0.weight", f"{prefix}1.weight") if name not in state]
    if missing:
        raise SourceError(f"{path.name}: expected {prefix}weight, got neither it nor {missing[0]}")
    projection, rows = state[f"{prefix}0.weight"], state[f"{prefix}1.weight"]
    if rows.shape[1:] != projection.shape[:1]:
        raise SourceError(
            f"{path.name}: {prefix}1.weight: expected [shortlist, {len(projection)}], "
            f"got {list(rows.shape)}"
        )
    product: Array = rows.astype(np.float64) @ projection.astype(np.float64)
    return product


def _projection(
    state: dict[str, Array], prefix: str, tail_number: int, hidden_size: int, path: Path
) -> Array:
    """Return [width, H]; a projection tied to the embedding is stored as [H, width].

    The shape shows if it is tied, unless it is square.
    """
    name = f"{prefix}tail.{tail_number}.0.weight"
    if name not in state:
        raise SourceError(f"{path.name}: expected {name}, got none")
    stored, width = state[name], state[f"{prefix}tail.{tail_number}.2.weight"].shape[-1]
    is_square = stored.shape == (hidden_size, hidden_size)
    is_tied = (
        _is_embedding_projection(state, prefix, tail_number, stored)
        if is_square
        else (stored.shape == (hidden_size, width))
    )
    return stored.T if is_tied else stored


def _is_embedding_projection(
    state: dict[str, Array], prefix: str, tail_number: int, stored: Array
) -> bool:
    decoder = prefix.removesuffix("adaptive_softmax.")
    embedding = state.get(f"{decoder}embed_tokens.embeddings.{tail_number + 1}.1.weight")
    return embedding is not None and np.array_equal(embedding, stored)

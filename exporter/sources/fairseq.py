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
from hsoftmax.models import Projected, adaptive_softmax
from hsoftmax.models.arrays import Array

from .adaptive import loaded
from .detection import names
from .source import Loaded, Options
from .state_dict import numbered, read_state, sole_prefix

_OURS = re.compile(
    r"(^|\.)(head\.(weight|word_proj\.([01]\.)?weight|class_proj\.weight)|tail\.\d+\.[02]\.weight"
    r"|embed_tokens\.embeddings\.\d+\.1\.weight)$"
)


def load(path: Path, options: Options) -> Loaded:
    """The decoder's softmax; `options.cutoffs`, where given, must be what the shapes imply."""
    state = read_state(path, lambda name: _OURS.search(name) is not None)
    prefix = sole_prefix(state, "tail.0.2.weight", "tail.0.0.weight", path=path)
    head = _head(state, f"{prefix}head.", path)
    weights = numbered(state, f"{prefix}tail.", ".2.weight", path=path)
    tails = [
        adaptive_softmax.build_projected(
            f"tail {i}", weight, None, _projection(state, prefix, i, head.hidden_size, path)
        )
        for i, weight in enumerate(weights)
    ]
    return loaded(adaptive_softmax.build(head, tails), path, options)


def recognises(path: Path) -> str | None:
    found = names(path)
    if not any(name.endswith("tail.0.2.weight") for name in found):
        return None
    tied = any(name.endswith("head.class_proj.weight") for name in found)
    return f"a fairseq AdaptiveSoftmax, {'tied to its embedding' if tied else 'untied'}"


def _head(state: dict[str, Array], head: str, path: Path) -> Projected:
    if f"{head}weight" in state:
        return adaptive_softmax.build_projected("head", state[f"{head}weight"])
    if f"{head}class_proj.weight" not in state:
        raise SourceError(
            f"{path.name}: expected {head}weight or {head}class_proj.weight, got none"
        )
    words, classes = _words(state, f"{head}word_proj.", path), state[f"{head}class_proj.weight"]
    if words.ndim != 2 or classes.ndim != 2 or words.shape[1] != classes.shape[1]:
        raise SourceError(
            f"{path.name}: {head}class_proj.weight: expected [tails, {words.shape[-1]}], "
            f"got {list(classes.shape)}"
        )
    return adaptive_softmax.build_projected("head", np.concatenate([words, classes]))


def _words(state: dict[str, Array], words: str, path: Path) -> Array:
    """[shortlist, H]; only these rows look at a projection, so it is multiplied in."""
    if f"{words}weight" in state:
        return state[f"{words}weight"]
    missing = [name for name in (f"{words}0.weight", f"{words}1.weight") if name not in state]
    if missing:
        raise SourceError(f"{path.name}: expected {words}weight, got neither it nor {missing[0]}")
    projection, rows = state[f"{words}0.weight"], state[f"{words}1.weight"]
    if rows.shape[1:] != projection.shape[:1]:
        raise SourceError(
            f"{path.name}: {words}1.weight: expected [shortlist, {len(projection)}], "
            f"got {list(rows.shape)}"
        )
    product: Array = rows.astype(np.float64) @ projection.astype(np.float64)
    return product


def _projection(
    state: dict[str, Array], prefix: str, number: int, hidden_size: int, path: Path
) -> Array:
    """[width, H]; a tied one is stored as [H, width], which its shape tells unless square."""
    name = f"{prefix}tail.{number}.0.weight"
    if name not in state:
        raise SourceError(f"{path.name}: expected {name}, got none")
    stored, width = state[name], state[f"{prefix}tail.{number}.2.weight"].shape[-1]
    square = stored.shape == (hidden_size, hidden_size)
    tied = (
        _is_embeddings(state, prefix, number, stored)
        if square
        else (stored.shape == (hidden_size, width))
    )
    return stored.T if tied else stored


def _is_embeddings(state: dict[str, Array], prefix: str, number: int, stored: Array) -> bool:
    decoder = prefix.removesuffix("adaptive_softmax.")
    embedding = state.get(f"{decoder}embed_tokens.embeddings.{number + 1}.1.weight")
    return embedding is not None and np.array_equal(embedding, stored)

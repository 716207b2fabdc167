"""Source `transformer-xl`: a `ProjectedAdaptiveLogSoftmax`, of Hugging Face or the original code.

cluster_weight [tails, E], cluster_bias; out_layers.i.weight [size, E_i], .bias; out_projs.i
[H, E_i], used as hidden @ out_projs.i, or none. With div_val 1 there is one out_layers.0 over all
targets, and the cutoffs come from --cutoffs or from the config.json next to the weights.

The file does not say which row of cluster_weight belongs to which tail. Hugging Face uses ascending
order, the original code descending order (--cluster-order reversed); the model uses ascending.

A file may lack layers and projections that are tied to the embedding: word_emb.emb_layers.i and
word_emb.emb_projs.i then replace them. Nothing else may be missing: all layers have biases, and
projections exist unless div_val is 1 and the embedding is as wide as the model.
"""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from hsoftmax.bundle import TextFileError, decode_text
from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import open_input
from hsoftmax.models import AdaptiveSoftmax, ProjectedLayer, adaptive_softmax
from hsoftmax.models.arrays import Array, expect_shape
from hsoftmax.models.decoder_errors import decoding

from .adaptive import checked_source_model, join_cutoffs
from .named_tensors import Harmless, NamedTensors, named_tensors
from .source import SourceModel, SourceOptions
from .state_dict import numbered, select_prefix

_OWN_NAMES = re.compile(
    r"(^|\.)(cluster_(weight|bias)|out_layers\.\d+\.(weight|bias)|out_projs\.\d+"
    r"|word_emb\.emb_layers\.\d+\.weight|word_emb\.emb_projs\.\d+)$"
)
_HARMLESS: Harmless = {
    r"(.*\.)?word_emb\.(emb_layers\.\d+\.weight|emb_projs\.\d+)": "the input embedding, untied",
}
_CONFIG = "config.json"
_MAX_CONFIG_BYTES = 16 << 20


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the softmax; a config.json in the file's folder may have its cutoffs."""
    with named_tensors(path, options, _is_own, _HARMLESS) as state:
        prefix = select_prefix(state, "cluster_weight", path=path, options=options)
        model = _read_model(state, prefix, path, options)
        return checked_source_model(model, path, options)


def _is_own(name: str) -> bool:
    return _OWN_NAMES.search(name) is not None


def _read_model(
    state: NamedTensors, prefix: str, file: Path, options: SourceOptions
) -> AdaptiveSoftmax:
    clusters = _clusters(state, prefix, file, options)
    weights, biases = _layers(state, prefix, file)
    has_one_layer = len(weights) == 1
    if has_one_layer:
        cutoffs = _cutoffs(file, options, len(clusters[0]), len(weights[0]))
        bounds = list(pairwise((0, *cutoffs, len(weights[0]))))
        expect_shape(f"{prefix}out_layers.0.bias", biases[0], weights[0].shape[:1])
        weights = [weights[0][start:end] for start, end in bounds]
        biases = [biases[0][start:end] for start, end in bounds]
    projections = _projections(state, prefix, len(weights), file, may_lack_all=has_one_layer)
    tails = [
        adaptive_softmax.build_projected(f"tail {i}", *parts)
        for i, parts in enumerate(zip(weights[1:], biases[1:], projections[1:], strict=True))
    ]
    head = _head(weights[0], biases[0], projections[0], clusters, len(tails))
    return adaptive_softmax.build(head, tails)


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    if not any(name.endswith("cluster_weight") for name in names):
        return None
    return "a ProjectedAdaptiveLogSoftmax of Transformer-XL"


def _required(state: NamedTensors, name: str, file: Path) -> Array:
    if name not in state:
        raise SourceError(f"{file.name}: expected {name}, got none")
    return state[name]


def _clusters(
    state: NamedTensors, prefix: str, file: Path, options: SourceOptions
) -> tuple[Array, Array]:
    """Return the head's rows for the tails, in the order of the tails."""
    weight, bias = (
        _required(state, f"{prefix}cluster_{part}", file) for part in ("weight", "bias")
    )
    return (weight, bias) if options.cluster_order == "ascending" else (weight[::-1], bias[::-1])


def _layers(state: NamedTensors, prefix: str, file: Path) -> tuple[list[Array], list[Array]]:
    out, tied = f"{prefix}out_layers.", f"{_embedding(state, prefix)}emb_layers."
    weights = numbered(state, out, ".weight", path=file) or numbered(
        state, tied, ".weight", path=file
    )
    if not weights:
        raise SourceError(f"{file.name}: expected {out}0.weight, got neither it nor {tied}0.weight")
    return weights, [_required(state, f"{out}{i}.bias", file) for i in range(len(weights))]


def _projections(
    state: NamedTensors, prefix: str, count: int, file: Path, *, may_lack_all: bool
) -> list[Array | None]:
    """Return [E_i, H] for each layer, or None for all if they take the hidden state directly."""
    tied = f"{_embedding(state, prefix)}emb_projs."
    shared = f"{tied}0" if f"{tied}1" not in state else ""
    names = [
        next((n for n in (f"{prefix}out_projs.{i}", f"{tied}{i}", shared) if n in state), None)
        for i in range(count)
    ]
    if None in names and not (may_lack_all and set(names) == {None}):
        missing = names.index(None)
        raise SourceError(
            f"{file.name}: expected {prefix}out_projs.{missing}, got neither it nor {tied}{missing}"
        )
    return [None if name is None else state[name].T for name in names]


def _embedding(state: NamedTensors, prefix: str) -> str:
    """Return the prefix of the same model's embedding, such as `transformer.word_emb.`."""
    model = prefix.removesuffix("crit.")
    prefixes = {
        name[: name.index("word_emb.")] + "word_emb."
        for name in state
        if name.startswith(model) and "word_emb." in name
    }
    return prefixes.pop() if len(prefixes) == 1 else f"{model}word_emb."


def _head(
    weight: Array,
    bias: Array,
    projection: Array | None,
    clusters: tuple[Array, Array],
    tails: int,
) -> ProjectedLayer:
    expect_shape("cluster_weight", clusters[0], (tails, weight.shape[-1]))
    expect_shape("cluster_bias", clusters[1], (tails,))
    rows, joined = (np.concatenate(parts) for parts in zip((weight, bias), clusters, strict=True))
    return adaptive_softmax.build_projected("head", rows, joined, projection)


def _cutoffs(file: Path, options: SourceOptions, tails: int, num_targets: int) -> tuple[int, ...]:
    """Return the cutoffs that divide one layer over all targets."""
    cutoffs = options.cutoffs or _cutoffs_of_config(file)
    if not cutoffs:
        raise SourceError(
            f"{file.name}: cutoffs: expected --cutoffs A,B or a {_CONFIG} beside the file, got "
            f"neither: out_layers.0 holds all {num_targets} targets"
        )
    inner_cutoffs = cutoffs[:-1] if cutoffs[-1] == num_targets else cutoffs
    bounds = (0, *inner_cutoffs, num_targets)
    if len(inner_cutoffs) != tails or any(start >= end for start, end in pairwise(bounds)):
        raise SourceError(
            f"{file.name}: cutoffs: expected {tails} ascending numbers from 1 to "
            f"{num_targets - 1}, one for each row of cluster_weight, got {join_cutoffs(cutoffs)}"
        )
    return inner_cutoffs


def _decode(content: bytes, config: Path) -> str:
    try:
        return decode_text(content, str(config))
    except TextFileError as error:
        raise SourceError(str(error)) from None


def _cutoffs_of_config(file: Path) -> tuple[int, ...]:
    config = file.parent / _CONFIG
    if not config.exists():
        return ()

    def damaged(_: str) -> SourceError:
        return SourceError(f"{config}: expected JSON with a list cutoffs, got none")

    with open_input(config) as opened, decoding(damaged):
        content = json.loads(_decode(opened.read(_MAX_CONFIG_BYTES), config))
    cutoffs = content.get("cutoffs", []) if isinstance(content, dict) else None
    if not isinstance(cutoffs, list) or not all(type(cutoff) is int for cutoff in cutoffs):
        raise damaged("")
    return tuple(cutoffs)

"""Source `transformer-xl`: a `ProjectedAdaptiveLogSoftmax`, of Hugging Face or the original code.

cluster_weight [tails, E], cluster_bias; out_layers.i.weight [size, E_i], .bias; out_projs.i
[H, E_i], used as hidden @ out_projs.i, or none. With div_val 1 there is one out_layers.0 over all
targets, and the cutoffs come from --cutoffs or from the config.json next to the weights.

The file does not say which row of cluster_weight belongs to which tail. Hugging Face uses ascending
order, the original code descending order (--cluster-order reversed); the model uses ascending.

A file may lack layers and projections that are tied to the embedding: word_emb.emb_layers.i and
word_emb.emb_projs.i then replace them.
"""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import open_input
from hsoftmax.models import ProjectedLayer, adaptive_softmax
from hsoftmax.models.arrays import Array, expect_shape
from hsoftmax.models.decoding import decoding

from .adaptive import checked_source_model, join_cutoffs
from .detection import contained_names
from .source import SourceModel, SourceOptions
from .state_dict import numbered, read_state, sole_prefix

_NAMES = re.compile(
    r"(^|\.)(cluster_(weight|bias)|out_layers\.\d+\.(weight|bias)|out_projs\.\d+"
    r"|word_emb\.emb_layers\.\d+\.weight|word_emb\.emb_projs\.\d+)$"
)
_CONFIG = "config.json"
_MAX_CONFIG_BYTES = 16 << 20
_WEIGHTS_PATTERNS = ("*.safetensors", "*.bin", "*.pt")


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the softmax of a file, or of the only weights file of a folder."""
    file = weights_file(path)
    state = read_state(file, lambda name: _NAMES.search(name) is not None)
    prefix = sole_prefix(state, "cluster_weight", path=file)
    clusters = _clusters(state, prefix, options)
    weights, biases = _layers(state, prefix, file)
    if len(weights) == 1:
        cutoffs = _cutoffs(file, options, len(clusters[0]), len(weights[0]))
        bounds = list(pairwise((0, *cutoffs, len(weights[0]))))
        weights = [weights[0][start:end] for start, end in bounds]
        biases = [None if b is None else b[start:end] for b in biases for start, end in bounds]
    projections = _projections(state, prefix, len(weights))
    tails = [
        adaptive_softmax.build_projected(f"tail {i}", *parts)
        for i, parts in enumerate(zip(weights[1:], biases[1:], projections[1:], strict=True))
    ]
    head = _head(weights[0], biases[0], projections[0], clusters, len(tails))
    return checked_source_model(adaptive_softmax.build(head, tails), file, options)


def detect(path: Path) -> str | None:
    """Return a description of the file if it has this format, else None."""
    file = weights_file(path)
    names = contained_names(file)
    if not any(name.endswith("cluster_weight") for name in names):
        return None
    return f"{file.name} with a ProjectedAdaptiveLogSoftmax of Transformer-XL"


def weights_file(path: Path) -> Path:
    """Return the path itself, or the only weights file of a folder; safetensors come first."""
    if not path.is_dir():
        return path
    for pattern in _WEIGHTS_PATTERNS:
        files = sorted(path.glob(pattern))
        if len(files) == 1:
            return files[0]
        if files:
            names = ", ".join(file.name for file in files)
            raise SourceError(f"{path}: expected one weights file {pattern}, got {names}")
    raise SourceError(
        f"{path}: expected a folder with a weights file {', '.join(_WEIGHTS_PATTERNS)}"
    )


def _clusters(
    state: dict[str, Array], prefix: str, options: SourceOptions
) -> tuple[Array, Array | None]:
    """Return the head's rows for the tails, in the order of the tails."""
    weight, bias = state[f"{prefix}cluster_weight"], state.get(f"{prefix}cluster_bias")
    if options.cluster_order == "ascending":
        return weight, bias
    return weight[::-1], None if bias is None else bias[::-1]


def _layers(
    state: dict[str, Array], prefix: str, file: Path
) -> tuple[list[Array], list[Array | None]]:
    out, tied = f"{prefix}out_layers.", f"{_embedding(state, prefix)}emb_layers."
    weights = numbered(state, out, ".weight", path=file) or numbered(
        state, tied, ".weight", path=file
    )
    if not weights:
        raise SourceError(f"{file.name}: expected {out}0.weight, got neither it nor {tied}0.weight")
    return weights, [state.get(f"{out}{i}.bias") for i in range(len(weights))]


def _projections(state: dict[str, Array], prefix: str, count: int) -> list[Array | None]:
    """Return [E_i, H] for each layer, or None if it takes the hidden state directly."""
    tied = f"{_embedding(state, prefix)}emb_projs."
    shared = state.get(f"{tied}0") if f"{tied}1" not in state else None
    projections = [
        state.get(f"{prefix}out_projs.{i}", state.get(f"{tied}{i}", shared)) for i in range(count)
    ]
    return [None if projection is None else projection.T for projection in projections]


def _embedding(state: dict[str, Array], prefix: str) -> str:
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
    bias: Array | None,
    projection: Array | None,
    clusters: tuple[Array, Array | None],
    tails: int,
) -> ProjectedLayer:
    expect_shape("cluster_weight", clusters[0], (tails, weight.shape[-1]))
    joined_bias: Array | None = None
    if bias is not None or clusters[1] is not None:
        parts = zip((weight, clusters[0]), (bias, clusters[1]), strict=True)
        joined_bias = np.concatenate([np.zeros(len(w)) if b is None else b for w, b in parts])
    rows = np.concatenate([weight, clusters[0]])
    return adaptive_softmax.build_projected("head", rows, joined_bias, projection)


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


def _cutoffs_of_config(file: Path) -> tuple[int, ...]:
    config = file.parent / _CONFIG
    if not config.exists():
        return ()

    def damaged(_: str) -> SourceError:
        return SourceError(f"{config}: expected JSON with a list cutoffs, got none")

    with open_input(config) as opened, decoding(damaged):
        content = json.loads(opened.read(_MAX_CONFIG_BYTES))
    cutoffs = content.get("cutoffs", []) if isinstance(content, dict) else None
    if not isinstance(cutoffs, list) or not all(type(cutoff) is int for cutoff in cutoffs):
        raise damaged("")
    return tuple(cutoffs)

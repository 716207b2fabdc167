"""Every tensor that each library saves with its softmax, under all options of its constructor.

The names and shapes are those of the libraries' own code:

* Theano: arguments of `theano.tensor.nnet.h_softmax` and `sparse_block_dot`; Theano saves nothing
* PyTorch: `torch/nn/modules/adaptive.py`, AdaptiveLogSoftmaxWithLoss.__init__
* Transformer-XL: `proj_adaptive_softmax.py` and AdaptiveEmbedding of the original code, and
  `modeling_transfo_xl_utilities.py` of transformers, whose tie_weights decides what is left out
* fairseq: `fairseq/modules/adaptive_softmax.py` and `adaptive_input.py`
* TheanoLM: `network/hsoftmaxlayer.py`, `vocabulary/vocabulary.py`, `training/*optimizer.py`
* fastText: `fasttext.cc` saveModel, `args.cc`, `dictionary.cc`, `densematrix.cc`
* Chainer: `links/loss/hierarchical_softmax.py`, W, and the tree of `_func`, saved with it
* PaddlePaddle: `nn/layer/loss.py` HSigmoidLoss, `framework/io.py` save
* gensim: the arrays are taken from models that the installed library trains
"""

import pickle  # noqa: TID251 - written here, to be read without it
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save_file

from hsoftmax.exporter.sources import SourceOptions

from .fasttext_files import MAGIC

HIDDEN = 6
NO_OPTIONS = SourceOptions()
Tensors = Mapping[str, Any]
Write = Callable[[Path, Tensors], Path]


def write_safetensors(folder: Path, tensors: Tensors) -> Path:
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / "model")
    return folder / "model"


def write_pickle(folder: Path, tensors: Tensors) -> Path:
    (folder / "model.pdparams").write_bytes(pickle.dumps(dict(tensors), 4))
    return folder / "model.pdparams"


def write_npz(folder: Path, tensors: Tensors) -> Path:
    np.savez(folder / "weights.npz", **tensors)
    return folder / "weights.npz"


@dataclass(frozen=True)
class Saved:
    """The tensors of one file.

    Attributes:
        harmless: for each tensor that does not change the answers, the reason
        optional: for each tensor that changes the answers and may be missing, the rule
        has_names: False for a format of fields in a fixed order, of which none can be missing
    """

    source: str
    tensors: Tensors
    harmless: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    write: Write = write_safetensors
    options: SourceOptions = NO_OPTIONS
    has_names: bool = True


def floats(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Any]:
    """Return random float32 tensors of these shapes."""
    rng = np.random.default_rng(0)
    return {
        f"{prefix}{name}": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


# --- plain arrays ---------------------------------------------------------------------------------

THEANO = floats({"W1": (HIDDEN, 4), "b1": (4,), "W2": (4, HIDDEN, 3), "b2": (4, 3)})
TWO_LEVEL = floats({"W1": (HIDDEN, 3), "b1": (3,), "weight": (7, HIDDEN), "bias": (7,)})
LEVELS = floats(
    {f"{part}_{i}": shape for i, rows in enumerate((2, 4, 9))
     for part, shape in (("weight", (rows, HIDDEN)), ("bias", (rows,)))}
)  # fmt: skip
OFFSETS = {
    "offsets_0": np.array([0, 2]),
    "offsets_1": np.array([0, 1, 4]),
    "offsets_2": np.array([0, 2, 3, 7, 9]),
}
TREE = {
    "path": np.array([[0, 1], [0, 0], [0, 1]]),
    "sign": np.array([[1, -1], [-1, 0], [1, 1]]),
}
NUM_TARGETS_RULE = "without it, and without --num-targets, every slot is a target"
ARRAYS = {
    "theano": Saved(
        "theano",
        THEANO | {"n_outputs": np.array(10), "n_classes": np.array(4),
                  "n_outputs_per_class": np.array(3), "batch_size": np.array(5)},
        harmless={"batch_size": "a bundle answers batches of any size"},
        optional={"n_outputs": NUM_TARGETS_RULE, "n_classes": "W2 has it",
                  "n_outputs_per_class": "W2 has it"},
        write=write_npz,
    ),
    "two-level, clusters": Saved(
        "two-level", TWO_LEVEL | {"class_of": np.array([2, 0, 2, 1, 0, 2, 0])}, write=write_npz
    ),
    "two-level, offsets": Saved(
        "two-level", TWO_LEVEL | {"offsets": np.array([0, 3, 4, 7])}, write=write_npz
    ),
    "levels": Saved(
        "levels",
        LEVELS | OFFSETS | {"target_rows": np.array([8, 0, 3, 5, 1, 2, 4, 6, 7])},
        optional={"target_rows": "without it target t is row t"},
        write=write_npz,
    ),
    "huffman": Saved(
        "huffman",
        floats({"syn1": (2, HIDDEN), "bias": (2,)}) | TREE,
        optional={"bias": "trees of word2vec's kind have none"},
        write=write_npz,
    ),
    "chainer": Saved(
        "chainer",
        floats({"W": (2, HIDDEN)})
        | {"begins": np.array([0, 2, 3, 5]), "paths": np.array([0, 1, 0, 0, 1]),
           "codes": np.array([1, -1, -1, 1, 1])},
        write=write_npz,
    ),
    "paddle, default tree": Saved(
        "paddle",
        floats({"weight": (4, HIDDEN), "bias": (4, 1)})
        | {"StructuredToParameterName@@": np.array([1, 2])},
        harmless={"StructuredToParameterName@@": "other names of the same parameters"},
        optional={"bias": "no bias: bias_attr=False"},
        write=write_pickle,
        options=SourceOptions(num_targets=5),
    ),
    "paddle, custom tree": Saved(
        "paddle",
        floats({"weight": (3, HIDDEN), "bias": (3, 1)})
        | {"path_table": np.array([[0, 1], [0, -1], [0, 1]]),
           "path_code": np.array([[1, 0], [0, -1], [1, 1]])},
        optional={"bias": "no bias: bias_attr=False"},
        write=write_pickle,
    ),
    "tree": Saved(
        "tree",
        floats({"weight": (7, HIDDEN), "bias": (7,)})
        | {"parent": np.array([-1, -1, 0, 0, 2, 2, 2])},
        write=write_npz,
    ),
    "sparse-block-dot": Saved(
        "sparse-block-dot", floats({"W": (2, 3, 4, 5), "b": (3, 5)}), write=write_npz
    ),
}  # fmt: skip

# --- modules of PyTorch ---------------------------------------------------------------------------

_PYTORCH = {
    "head.weight": (7, HIDDEN), "tail.0.0.weight": (3, HIDDEN), "tail.0.1.weight": (6, 3),
    "tail.1.0.weight": (1, HIDDEN), "tail.1.1.weight": (8, 1),
}  # fmt: skip
_HEAD_BIAS = {"head.bias": (7,)}
_TAIL_BIASES = {
    "tail.0.0.bias": (3,), "tail.0.1.bias": (6,), "tail.1.0.bias": (1,), "tail.1.1.bias": (8,),
}  # fmt: skip
_ELSEWHERE = floats({"lm.encoder.weight": (9, HIDDEN), "optimizer.state.0.exp_avg": (9,)})
_OTHER_MODULES = dict.fromkeys(_ELSEWHERE, "another module of the file")


def _pytorch(*shapes: Mapping[str, tuple[int, ...]]) -> Saved:
    names = {name: shape for part in shapes for name, shape in part.items()}
    rules = {f"lm.softmax.{name}": "no bias: head_bias=False, and tails as PyTorch makes them"
             for name in names if name.endswith("bias")}  # fmt: skip
    tensors = floats(names, "lm.softmax.") | _ELSEWHERE
    return Saved("pytorch", tensors, harmless=_OTHER_MODULES, optional=rules)


_EMBEDDING = "the input embedding, which is not tied to this softmax"
_TIED_RULE = "transformers leaves out what is tied: without it the embedding's is used"
_WIDTH_RULE = "without any projection the embedding is as wide as hidden (div_val=1)"
_CUTOFFS = SourceOptions(cutoffs=(5, 11))


def _transformer_xl(
    layers: Mapping[str, tuple[int, ...]],
    embedding: Mapping[str, tuple[int, ...]],
    *,
    is_tied: bool = False,
    options: SourceOptions = NO_OPTIONS,
    optional: Mapping[str, str] = {},
) -> Saved:
    tensors = floats(layers, "crit.") | floats(embedding, "transformer.word_emb.")
    unused = () if is_tied else (f"transformer.word_emb.{name}" for name in embedding)
    harmless = dict.fromkeys(unused, _EMBEDDING)
    return Saved("transformer-xl", tensors, harmless, optional, options=options)


_CLUSTERS = {"cluster_weight": (2, HIDDEN), "cluster_bias": (2,)}
_ONE_LAYER = {"out_layers.0.weight": (20, HIDDEN), "out_layers.0.bias": (20,)}
_ONE_PROJECTED = {f"out_projs.{i}": (8, HIDDEN) for i in range(3)}
_BIASES = {"out_layers.0.bias": (5,), "out_layers.1.bias": (6,), "out_layers.2.bias": (9,)}
_WEIGHTS = {"0.weight": (5, HIDDEN), "1.weight": (6, 3), "2.weight": (9, 2)}
_PROJECTIONS = {"0": (HIDDEN, HIDDEN), "1": (HIDDEN, 3), "2": (HIDDEN, 2)}
_OUT_LAYERS = {f"out_layers.{name}": shape for name, shape in _WEIGHTS.items()}
_OUT_PROJS = {f"out_projs.{i}": shape for i, shape in _PROJECTIONS.items()}
_EMB_LAYERS = {f"emb_layers.{name}": shape for name, shape in _WEIGHTS.items()}
_EMB_PROJS = {f"emb_projs.{i}": shape for i, shape in _PROJECTIONS.items()}

_ADAPTIVE = "decoder.adaptive_softmax."
_FAIRSEQ_TAILS = {
    "tail.0.0.weight": (3, HIDDEN), "tail.0.2.weight": (6, 3),
    "tail.1.0.weight": (2, HIDDEN), "tail.1.2.weight": (8, 2),
}  # fmt: skip
_FAIRSEQ_BIASES = {
    "tail.0.0.bias": (3,), "tail.0.2.bias": (6,), "tail.1.0.bias": (2,), "tail.1.2.bias": (8,),
}  # fmt: skip
_TIED = {"head.word_proj.weight": (5, HIDDEN), "head.class_proj.weight": (2, HIDDEN)}
_NARROW = {
    "head.word_proj.0.weight": (4, HIDDEN), "head.word_proj.1.weight": (5, 4),
    "head.class_proj.weight": (2, HIDDEN),
}  # fmt: skip
_ADAPTIVE_INPUT = {
    "0.0.weight": (5, HIDDEN), "0.1.weight": (HIDDEN, HIDDEN), "1.0.weight": (6, 3),
    "1.1.weight": (HIDDEN, 3), "2.0.weight": (8, 2), "2.1.weight": (HIDDEN, 2),
}  # fmt: skip


def _fairseq(*shapes: Mapping[str, tuple[int, ...]], is_tied: bool = False) -> Saved:
    names = {name: shape for part in shapes for name, shape in part.items()}
    tensors = floats(names, _ADAPTIVE) | {f"{_ADAPTIVE}version": np.array([1])}
    harmless = {f"{_ADAPTIVE}version": "its presence alone tells new models from old ones"}
    if is_tied:
        tensors |= floats(_ADAPTIVE_INPUT, "decoder.embed_tokens.embeddings.")
        tensors |= floats({f"{_ADAPTIVE}head._float_tensor": (1,)})
        harmless |= {f"{_ADAPTIVE}head._float_tensor": "an empty buffer that shows the device"}
        harmless |= {n: "the input embedding" for n in tensors if "embed_tokens" in n}
    rules = {n: "no bias: fairseq's own layers have none" for n in tensors if n.endswith("bias")}
    return Saved("fairseq", tensors, harmless, rules)


_SQUARE_TAILS = {  # as wide as the model
    "tail.0.0.weight": (HIDDEN, HIDDEN), "tail.0.2.weight": (6, HIDDEN),
    "tail.1.0.weight": (HIDDEN, HIDDEN), "tail.1.2.weight": (8, HIDDEN),
}  # fmt: skip


def _tied_projections() -> Saved:
    """Return a softmax with square projections that are the embedding's own."""
    saved = _fairseq(_TIED, _SQUARE_TAILS, is_tied=True)
    own = {f"decoder.embed_tokens.embeddings.{i + 1}.1.weight":
           saved.tensors[f"{_ADAPTIVE}tail.{i}.0.weight"] for i in range(2)}  # fmt: skip
    harmless = {name: reason for name, reason in saved.harmless.items() if name not in own}
    return Saved("fairseq", {**saved.tensors, **own}, harmless)


MODULES = {
    "pytorch": _pytorch(_PYTORCH),
    "pytorch, head_bias": _pytorch(_PYTORCH, _HEAD_BIAS),
    "pytorch, all biases": _pytorch(_PYTORCH, _HEAD_BIAS, _TAIL_BIASES),
    "transformer-xl, div_val 1": _transformer_xl(
        _CLUSTERS | _ONE_LAYER,
        {"emb_layers.0.weight": (20, HIDDEN)},
        options=_CUTOFFS,
        optional={"crit.out_layers.0.weight": _TIED_RULE},
    ),
    "transformer-xl, div_val 1 projected": _transformer_xl(
        _CLUSTERS | _ONE_LAYER | _ONE_PROJECTED,
        {"emb_layers.0.weight": (20, HIDDEN), "emb_projs.0": (8, HIDDEN)},
        options=_CUTOFFS,
        optional=dict.fromkeys(
            ("crit.out_layers.0.weight", *(f"crit.{name}" for name in _ONE_PROJECTED)), _TIED_RULE
        ),
    ),
    "transformer-xl, div_val 1 tied": _transformer_xl(
        _CLUSTERS | {"out_layers.0.bias": (20,)},
        {"emb_layers.0.weight": (20, HIDDEN), "emb_projs.0": (8, HIDDEN)},
        is_tied=True,
        options=_CUTOFFS,
        optional={"transformer.word_emb.emb_projs.0": _WIDTH_RULE},
    ),
    "transformer-xl, div_val 2": _transformer_xl(
        _CLUSTERS | _BIASES | _OUT_LAYERS | _OUT_PROJS,
        _EMB_LAYERS | _EMB_PROJS,
        optional={f"crit.{name}": _TIED_RULE for name in _OUT_PROJS},
    ),
    "transformer-xl, div_val 2 tied": _transformer_xl(
        _CLUSTERS | _BIASES, _EMB_LAYERS | _EMB_PROJS, is_tied=True
    ),
    "fairseq, untied": _fairseq({"head.weight": (7, HIDDEN)}, _FAIRSEQ_TAILS),
    "fairseq, untied, all biases": _fairseq(
        {"head.weight": (7, HIDDEN), "head.bias": (7,)}, _FAIRSEQ_TAILS, _FAIRSEQ_BIASES
    ),
    "fairseq, tied": _fairseq(_TIED, _FAIRSEQ_TAILS, is_tied=True),
    "fairseq, tied, all biases": _fairseq(
        _TIED, {"head.word_proj.bias": (5,), "head.class_proj.bias": (2,)},
        _FAIRSEQ_TAILS, _FAIRSEQ_BIASES, is_tied=True,
    ),
    "fairseq, narrow head, all biases": _fairseq(
        _NARROW, {"head.word_proj.0.bias": (4,), "head.word_proj.1.bias": (5,)},
        {"head.class_proj.bias": (2,)}, _FAIRSEQ_TAILS, is_tied=True,
    ),
    "fairseq, untied, square": _fairseq({"head.weight": (7, HIDDEN)}, _SQUARE_TAILS),
    "fairseq, square tied projections": _tied_projections(),
}  # fmt: skip

# --- TheanoLM -------------------------------------------------------------------------------------

_LAYER = "layers/output_layer/"
_OPTIMIZER_SUFFIXES = (  # of all optimizers: SGD, AdaGrad, AdaDelta, Nesterov, RMSProp, Adam
    "gradient", "sum_sqr_gradient", "mean_gradient", "mean_sqr_gradient", "mean_sqr_velocity",
    "mean_sqr_delta", "velocity",
)  # fmt: skip
_HSOFTMAX = {
    "input/W": (HIDDEN, 4), "input/b": (4,), "level1/W": (4, HIDDEN, 3), "level1/b": (4, 3),
}  # fmt: skip


def write_hdf5(folder: Path, tensors: Tensors) -> Path:
    with h5py.File(folder / "model.h5", "w") as file:
        for name, tensor in tensors.items():
            is_text = np.asarray(tensor).dtype == object
            file[name] = np.array(tensor, h5py.string_dtype()) if is_text else tensor
    return folder / "model.h5"


def _theanolm() -> Saved:
    optimizer = {
        f"{_LAYER}{name}_{suffix}": np.ones(shape, np.float32)
        for name, shape in _HSOFTMAX.items()
        for suffix in _OPTIMIZER_SUFFIXES
    }
    elsewhere = floats({"layers/hidden/layer_input/W": (3, 4), "trainer/recent_cost": (2,)})
    vocabulary = {
        "vocabulary/words": np.array([f"w{i}" for i in range(11)], dtype=object),
        "vocabulary/classes": np.roll(np.arange(11), 2),
        "vocabulary/probs": np.ones(11),
        "vocabulary/unigram_probs": np.full(11, 1 / 11),
    }
    harmless = dict.fromkeys(optimizer, "the optimizer's state")
    harmless |= dict.fromkeys(elsewhere, "another layer or group")
    harmless |= {
        "vocabulary/probs": "the probability of each word in its class, after the softmax",
        "vocabulary/unigram_probs": "the noise distribution of training",
    }
    optional = {"vocabulary/words": "without it targets have no labels"}
    tensors = floats(_HSOFTMAX, _LAYER) | vocabulary | optimizer | elsewhere
    return Saved("theanolm", tensors, harmless, optional, write_hdf5)


# --- fastText -------------------------------------------------------------------------------------

_TRAINING = "only training reads it"
_FASTTEXT = {
    "magic": np.int32([MAGIC]), "version": np.int32([12]), "dim": np.int32([4]),
    "ws": np.int32([5]), "epoch": np.int32([5]), "minCount": np.int32([1]), "neg": np.int32([5]),
    "wordNgrams": np.int32([2]), "loss": np.int32([1]), "model": np.int32([3]),
    "bucket": np.int32([8]), "minn": np.int32([2]), "maxn": np.int32([3]),
    "lrUpdateRate": np.int32([100]), "t": np.float64([1e-4]),
    "size": np.int32([8]), "nwords": np.int32([3]), "nlabels": np.int32([5]),
    "ntokens": np.int64([99]), "pruned": np.int64([-1]),
    "words": np.array([b"</s>", b"bon", b"jour"], dtype=object),
    "word counts": np.int64([40, 30, 20]),
    "labels": np.array([b"__label__a", b"b", b"c", b"d", b"e"], dtype=object),
    "label counts": np.int64([16, 8, 4, 2, 1]),
    "input: quantised": np.uint8([0]), "input: shape": np.int64([11, 4]),
    "output: quantised": np.uint8([0]), "output: shape": np.int64([5, 4]),
    **floats({"input": (44,), "output, rows of nodes": (16,), "output, last row": (4,)}),
}  # fmt: skip
_FASTTEXT_HARMLESS = dict.fromkeys(
    ("ws", "epoch", "minCount", "neg", "lrUpdateRate", "t", "ntokens", "word counts"), _TRAINING
) | {
    "output, last row": "a tree over N targets has N - 1 nodes; fastText allocates N rows",
    "output: quantised": "read only if the input is quantised; fastText writes it in any case",
}  # fmt: skip
_HEADER = list(_FASTTEXT)[: list(_FASTTEXT).index("words")]
_MATRICES = ("input: quantised", "input: shape", "input", "output: quantised", "output: shape",
             "output, rows of nodes", "output, last row")  # fmt: skip


def write_fasttext(folder: Path, fields: Tensors) -> Path:
    """Write the fields in the order of fastText's saveModel."""
    parts = [fields[name].tobytes() for name in _HEADER]
    for kind, names, counts in ((0, "words", "word counts"), (1, "labels", "label counts")):
        for name, count in zip(fields[names], fields[counts], strict=True):
            parts.append(name + b"\0" + count.tobytes() + bytes([kind]))
    parts += [fields[name].tobytes() for name in _MATRICES]
    (folder / "model.bin").write_bytes(b"".join(parts))
    return folder / "model.bin"


FILES = {
    "theanolm": _theanolm(),
    "fasttext": Saved(
        "fasttext", _FASTTEXT, _FASTTEXT_HARMLESS, write=write_fasttext, has_names=False
    ),
}

"""Every tensor of every source is used, is harmless for a stated reason, or makes export refuse.

`saved_tensors` has the tensors that each library saves. Each is changed in turn, then left out, and
then tensors that the library does not save are put beside it.
"""

import copy
import pickle  # noqa: TID251 - written here, to be read without it
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gensim.models import Doc2Vec, FastText, Word2Vec
from gensim.models.doc2vec import TaggedDocument

from hsoftmax import models
from hsoftmax.exporter import SourceError
from hsoftmax.exporter.sources import load
from hsoftmax.featurizers import featurize
from hsoftmax.models import WeightsError

from .saved_tensors import ARRAYS, FILES, MODULES, NO_OPTIONS, Saved, write_npz

SAVED = ARRAYS | MODULES | FILES
VERSIONS = {"decoder.adaptive_softmax.version"}  # of any value, but never missing
SIZES = {"n_classes", "n_outputs_per_class"}  # checked where a file has them
REFUSED = "refused"
TEXTS = ["bon jour bon w1 w2", "w1", "3 w1 w2", "x"]


def answers(saved: Saved, folder: Path, tensors) -> list | str:
    """Return the reference's answers, the labels and the hidden states of two texts, or REFUSED."""
    try:
        loaded = load(saved.write(folder, tensors), saved.source, saved.options)
    except (SourceError, WeightsError):
        return REFUSED
    model, rng = loaded.model, np.random.default_rng(9)
    if isinstance(model, models.SparseBlockDot):
        blocks = np.array([[0, 1]]), np.array([[0, 1, 2]])
        h = rng.normal(size=(1, 2, model.sizes.input_size))
        return models.sparse_block_dot.block_dot(model, h, *blocks).tolist()
    hidden = rng.normal(size=(3, model.hidden_size))
    log_probs = models.reference(model).log_probs(model, hidden)
    return [log_probs.tolist(), loaded.labels, hidden_of_texts(loaded.featurizer)]


def hidden_of_texts(featurizer) -> list | None:
    """Return the hidden states of texts, an error for one of which nothing is known."""
    if featurizer is None:
        return None
    results = featurize(featurizer, TEXTS)
    return [results.hidden.tolist(), sorted(results.errors)]


def changed(tensor: np.ndarray) -> np.ndarray:
    """Return other numbers of the same shape and type."""
    if tensor.dtype.kind == "f":
        noise = np.random.default_rng(7).normal(size=tensor.shape)
        return (tensor + noise).astype(tensor.dtype)
    rolled = np.roll(tensor, 1)
    pairs = zip(rolled.flat, tensor.flat, strict=True)
    return rolled if any(not np.array_equal(*pair) for pair in pairs) else tensor + one(tensor)


def one(tensor: np.ndarray) -> object:
    """Return a value that may be added to each element."""
    return b"x" if tensor.dtype == object else tensor.dtype.type(1)


@pytest.mark.parametrize("case", SAVED)
def test_a_changed_tensor_changes_the_answers_unless_it_is_harmless(case, tmp_path):
    saved = SAVED[case]
    before = answers(saved, tmp_path, saved.tensors)
    assert before != REFUSED
    without_effect = {
        name
        for name, tensor in saved.tensors.items()
        if answers(saved, tmp_path, {**saved.tensors, name: changed(tensor)}) == before
    }
    assert without_effect == saved.harmless.keys()


@pytest.mark.parametrize("case", [case for case in SAVED if SAVED[case].has_names])
def test_a_missing_tensor_is_refused_unless_a_rule_says_that_it_may_be_missing(case, tmp_path):
    saved = SAVED[case]
    before = answers(saved, tmp_path, saved.tensors)
    may_be_missing, without_effect = set(), set()
    for missing in saved.tensors:
        rest = {name: tensor for name, tensor in saved.tensors.items() if name != missing}
        after = answers(saved, tmp_path, rest)
        if after == before:
            without_effect.add(missing)
        elif after != REFUSED:
            may_be_missing.add(missing)
    assert may_be_missing | without_effect == (saved.optional | saved.harmless).keys() - VERSIONS
    assert without_effect - SIZES <= saved.harmless.keys()


def names_beside(saved: Saved) -> set[str]:
    """Return names that no library saves, beside and below each tensor of the softmax."""
    names = set()
    separator = "/" if saved.source == "theanolm" else "."
    for name in saved.tensors.keys() - saved.harmless.keys():
        folder, _, last = name.rpartition(separator)
        before = f"{folder}{separator}" if folder else ""
        names |= {f"{before}{new}" for new in ("bias", "scale", "temperature", f"{last}_g")}
        if separator == ".":  # in HDF5 a dataset has nothing below it
            names.add(f"{name}.lora_A.weight")
    return names - saved.tensors.keys()


@pytest.mark.parametrize("case", [case for case in SAVED if SAVED[case].has_names])
def test_a_tensor_that_no_library_saves_is_never_ignored(case, tmp_path):
    saved = SAVED[case]
    before = answers(saved, tmp_path, saved.tensors)
    ignored = []
    for name in names_beside(saved):
        weight = saved.tensors.get(name.replace("bias", "weight"), np.zeros(3))
        extra = np.random.default_rng(1).normal(size=len(weight)).astype(np.float32)
        if answers(saved, tmp_path, {**saved.tensors, name: extra}) == before:
            ignored.append(name)
    assert ignored == []


def test_the_refusal_names_the_tensors_and_the_next_step(tmp_path):
    tensors = {**SAVED["pytorch"].tensors, "lm.softmax.head.weight_g": np.ones(7, np.float32)}
    path = SAVED["pytorch"].write(tmp_path, tensors)
    with pytest.raises(SourceError) as raised:
        load(path, "auto", SAVED["pytorch"].options)
    assert str(raised.value) == (
        "model: expected only tensors that this format's softmax has, got lm.softmax.head.weight_g "
        "with them: fold what changes the probabilities into the weights, or save the file "
        "without it"
    )
    saved = SAVED["transformer-xl, div_val 2 tied"]
    beside = "transformer.word_emb.emb_layers.1.weight_g"
    path = saved.write(tmp_path, {**saved.tensors, beside: np.ones(3, np.float32)})
    with pytest.raises(SourceError, match=rf"softmax has, got {beside} with them"):
        load(path, "auto", saved.options)
    many = {f"extra{i}": np.zeros(1) for i in range(12)}
    with pytest.raises(SourceError, match=r"extra3, extra4, extra5 and 4 more with them"):
        load(write_npz(tmp_path, SAVED["theano"].tensors | many), "theano", SAVED["theano"].options)


# --- gensim ---------------------------------------------------------------------------------------

SENTENCES = [[f"w{int(w)}" for w in np.random.default_rng(i).zipf(1.4, 9) if w < 20]
             for i in range(40)]  # fmt: skip
DOCUMENTS = [TaggedDocument(words, [i]) for i, words in enumerate(SENTENCES)]
SETTINGS = {"hs": 1, "vector_size": 4, "min_count": 1, "epochs": 1, "seed": 1, "workers": 1}
GENSIM = {
    "Word2Vec": lambda **more: Word2Vec(SENTENCES, **SETTINGS, **more),
    "Doc2Vec": lambda **more: Doc2Vec(DOCUMENTS, **SETTINGS, **more),
    "FastText": lambda **more: FastText(SENTENCES, bucket=20, **SETTINGS, **more),
}
GENSIM_USED = {"syn1", "wv.expandos.code", "wv.expandos.point", "wv.index_to_key"}
GENSIM_TEXT = {
    "Word2Vec": {"wv.vectors"},
    "Doc2Vec": {"wv.vectors", "dv.vectors", "dv.index_to_key"},
    "FastText": {"wv.vectors_vocab", "wv.vectors_ngrams"},
}


def arrays_of(item: object, prefix: str = "") -> dict[str, tuple[dict, str]]:
    """Return (dictionary, key) of each array and word list in a model and in its parts."""
    found = {}
    for key, value in (item if isinstance(item, dict) else vars(item)).items():
        owner = item if isinstance(item, dict) else vars(item)
        if isinstance(value, np.ndarray) or key == "index_to_key":
            found[f"{prefix}{key}"] = (owner, key)
        elif key in {"wv", "dv", "expandos"}:
            found |= arrays_of(value, f"{prefix}{key}.")
    return found


@pytest.mark.parametrize("negative", [0, 3])
@pytest.mark.parametrize("kind", GENSIM)
def test_every_array_of_gensims_models_is_used_or_harmless(kind, negative, tmp_path):
    model = GENSIM[kind](negative=negative)

    def save(folder: Path, names) -> Path:
        other = copy.deepcopy(model)
        for name in names:
            owner, key = arrays_of(other)[name]
            value = owner[key]
            owner[key] = value[::-1] if isinstance(value, list) else changed(value)
        other.save(str(folder / "words.model"), sep_limit=2**20 if "syn1" in names else 0)
        return folder / "words.model"

    saved = Saved("gensim", {}, write=save)
    before = answers(saved, tmp_path, ())
    assert before != REFUSED
    used = {name for name in arrays_of(model) if answers(saved, tmp_path, (name,)) != before}
    assert used == GENSIM_USED | GENSIM_TEXT[kind]
    assert ("syn1neg" in arrays_of(model)) == (negative > 0)


@pytest.mark.parametrize("part", ["", "wv"])
def test_an_array_that_gensim_does_not_save_is_refused(part, tmp_path):
    model = GENSIM["Word2Vec"](negative=0)
    (getattr(model, part) if part else model).bias1 = np.ones(4, dtype=np.float32)
    for limit in (0, 2**20):  # in a file of its own, and in the pickle
        model.save(str(tmp_path / "words.model"), sep_limit=limit)
        with pytest.raises(SourceError, match=rf"got {part}\.?bias1 with them"):
            load(tmp_path / "words.model", "gensim", NO_OPTIONS)


@pytest.mark.parametrize("names", [3, None, "syn1", [["syn1"], 7]])
def test_names_of_extra_files_may_be_anything_in_a_damaged_pickle(names, tmp_path):
    model = GENSIM["Word2Vec"](negative=0)
    model.__dict__["__numpys"] = names
    (tmp_path / "words.model").write_bytes(pickle.dumps(model))
    load(tmp_path / "words.model", "gensim", NO_OPTIONS)


# --- checkpoints of PyTorch -----------------------------------------------------------------------


class Tensor:
    """A dense tensor of a checkpoint, as much of it as the source reads."""

    layout = "torch.strided"

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> "Tensor":
        return self

    cpu = float = detach

    def is_floating_point(self) -> bool:
        return self.array.dtype.kind == "f"

    def numpy(self) -> np.ndarray:
        return self.array


class Globals:
    """The context manager that lets a checkpoint hold an `argparse.Namespace`."""

    def __init__(self, allowed: list[type]) -> None:
        self.allowed = allowed

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize(
    ("extra", "refused"),
    [
        ({}, None),
        ({"epoch": 3, "optimizer": {"state": {0: {"exp_avg": Tensor(np.ones(3))}}}}, None),
        ({"temperature": 2.0}, "temperature"),
        ({"head.epoch": Tensor(np.ones(3))}, "head.epoch"),
        ({"_extra_state": {"scale": [1.0]}}, "_extra_state.scale"),
        ({"tail.2": [Tensor(np.ones(3))]}, "tail.2"),
    ],
)
def test_a_value_of_a_checkpoint_that_is_no_tensor_is_not_ignored_either(
    tmp_path, monkeypatch, extra, refused
):
    saved = SAVED["pytorch, all biases"]
    own = {
        name.removeprefix("lm.softmax."): Tensor(tensor)
        for name, tensor in saved.tensors.items()
        if name.startswith("lm.softmax.")
    }
    torch = SimpleNamespace(
        load=lambda *_, **__: own | extra,
        serialization=SimpleNamespace(safe_globals=Globals),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    path = tmp_path / "model.pt"
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
    path.write_bytes(magic + b"\x80\x02K\x01." + b"\x80\x02}." * 2)  # the rest is in `torch`
    if refused is None:
        load(path, "pytorch", saved.options)
    else:
        with pytest.raises(SourceError, match=rf"got {refused} with them"):
            load(path, "pytorch", saved.options)

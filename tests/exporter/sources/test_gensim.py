"""Tests of gensim models of several versions: stored trees are read, and no code of a file runs."""

import gzip
import math
import pickle  # noqa: TID251 - written here, to be read without it
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from gensim.models import Doc2Vec, FastText, Word2Vec
from gensim.models.doc2vec import TaggedDocument

from hsoftmax import bundle
from hsoftmax.exporter import ExportError, SourceError, SourceOptions, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.exporter.sources.gensim import detect
from hsoftmax.models import huffman_softmax
from hsoftmax.runtime.sessions import open_session

_RNG = np.random.default_rng(0)
SENTENCES = [[f"w{int(w)}" for w in _RNG.zipf(1.3, 12) if w < 90] for _ in range(200)]
SETTINGS = {"hs": 1, "negative": 0, "vector_size": 12, "min_count": 1, "epochs": 3, "seed": 1}


def gensim_test_data() -> Path:
    """Return the folder with models of the Lee background corpus in gensim's own tests."""
    spec = find_spec("gensim")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "test" / "test_data"


@pytest.fixture(scope="module")
def trained():
    return Word2Vec(SENTENCES, sg=1, window=2, workers=1, **SETTINGS)


def gensim_log_prob(model, word, hidden):
    """Return log p by gensim's formula: P(code 0) = sigmoid(syn1[point] . hidden)."""
    code, point = (model.wv.get_vecattr(word, name) for name in ("code", "point"))
    z = model.syn1[point].astype(np.float64) @ hidden
    return float(-np.logaddexp(0, -((-1.0) ** code) * z).sum())


def test_a_trained_model_gives_gensims_probabilities(tmp_path, trained):
    trained.save(str(tmp_path / "words.model"))
    loaded = load(tmp_path / "words.model", "gensim", SourceOptions())
    assert list(loaded.labels) == trained.wv.index_to_key
    hidden = trained.wv.vectors[:5].astype(np.float64)
    full = huffman_softmax.log_probs(loaded.model, hidden)
    np.testing.assert_allclose(np.exp(full).sum(axis=1), 1)
    for row in range(5):
        expected = [gensim_log_prob(trained, word, hidden[row]) for word in loaded.labels]
        np.testing.assert_allclose(full[row], expected, rtol=1e-12)


def log_sigmoid_from_table(step: float) -> float:
    """Return gensim's log sigmoid: a table of 1,000 entries from -6 to 6, and 0 outside it.

    gensim computes the index with integers, 1000 / 6 / 2 = 83, which is a little too low.
    """
    if not -6 < step < 6:
        return 0.0
    place = int((step + 6) * 83)
    return math.log(1 / (1 + math.exp(-((place / 1000 * 2 - 1) * 6))))


def test_score_is_reproduced_as_far_as_gensims_table_allows(tmp_path, trained):
    trained.save(str(tmp_path / "words.model"))
    loaded = load(tmp_path / "words.model", "gensim", SourceOptions())
    target_of = {word: target for target, word in enumerate(loaded.labels)}
    tree = loaded.model
    for sentence in SENTENCES[:10]:
        exact = through_table = 0.0
        pairs = [
            (target_of[word], trained.wv[context])
            for i, word in enumerate(sentence)
            for j, context in enumerate(sentence)
            if i != j and abs(i - j) <= 2
        ]
        steps = 0
        for target, hidden in pairs:
            length = tree.lengths[target]
            z = tree.sign[target, :length] * (tree.syn1[tree.path[target, :length]] @ hidden)
            assert (abs(z) < 6).all()
            through_table += sum(map(log_sigmoid_from_table, z))
            exact += huffman_softmax.target_log_prob(
                tree, hidden[None], np.array([0]), np.array([target])
            )[0]
            steps += length
        theirs = float(trained.score([sentence], total_sentences=1)[0])
        assert theirs == pytest.approx(through_table, abs=1e-3)
        assert theirs == pytest.approx(exact, abs=0.024 * steps)


def test_a_model_is_exported_with_its_words_and_needs_no_gensim_to_run(tmp_path, trained):
    trained.save(str(tmp_path / "words.model"))
    exported = export_file(
        tmp_path / "words.model", tmp_path / "repository" / "words", source="gensim"
    )
    words = bundle.read_labels(exported)
    hidden = trained.wv.vectors[:3]
    row, target = np.zeros(4, dtype=np.int64), np.array([0, 1, 5, len(words) - 1])
    feeds = {"hidden": hidden, "row": row, "target": target}
    actual = open_session(exported.path / "target_log_prob.onnx").run(None, feeds)[0]
    expected = [gensim_log_prob(trained, words[t], hidden[0].astype(np.float64)) for t in target]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("limit", [0, 10 * 1024**2])
def test_large_arrays_in_extra_files_are_read(tmp_path, trained, limit):
    trained.save(str(tmp_path / "words.model"), sep_limit=limit)
    extra_file = tmp_path / "words.model.syn1.npy"
    assert extra_file.exists() == (limit == 0)
    loaded = load(tmp_path / "words.model", "gensim", SourceOptions())
    np.testing.assert_array_equal(loaded.model.syn1, trained.syn1)
    vectors_file = tmp_path / "words.model.wv.vectors.npy"
    assert loaded.extra_files == ((extra_file, vectors_file) if limit == 0 else ())
    if limit == 0:
        exported = export_file(
            tmp_path / "words.model", tmp_path / "repository" / "words", source="gensim"
        )
        read = {"words.model", extra_file.name, vectors_file.name}
        assert set(exported.manifest.source.files) == read
        extra_file.write_bytes(extra_file.read_bytes()[:-1])
        with pytest.raises(SourceError, match=r"expected words.model.syn1.npy .* damaged"):
            load(tmp_path / "words.model", "gensim", SourceOptions())
        extra_file.unlink()
        with pytest.raises(SourceError, match=r"expected words.model.syn1.npy beside it, got none"):
            load(tmp_path / "words.model", "gensim", SourceOptions())


@pytest.mark.parametrize("limit", [0, 10 * 1024**2])
def test_a_model_that_gensim_compressed_is_read(tmp_path, trained, limit):
    path, extra_file = tmp_path / "words.model.gz", tmp_path / "words.model.gz.syn1.npz"
    trained.save(str(path), sep_limit=limit)
    assert extra_file.exists() == (limit == 0)
    assert detect(path) == "gensim Word2Vec model"
    exported = export_file(path, tmp_path / "repository" / "words", source="auto")
    assert bundle.read_labels(exported) == tuple(trained.wv.index_to_key)
    hidden = trained.wv.vectors[:2].astype(np.float64)
    full = huffman_softmax.log_probs(load(path, "gensim", SourceOptions()).model, hidden)
    expected = [gensim_log_prob(trained, w, hidden[1]) for w in trained.wv.index_to_key]
    np.testing.assert_allclose(full[1], expected, rtol=1e-12)
    if limit == 0:
        vectors = f"{path.name}.wv.vectors.npz"
        assert set(exported.manifest.source.files) == {path.name, extra_file.name, vectors}
        extra_file.write_bytes(extra_file.read_bytes()[:-1])
        with pytest.raises(SourceError, match=r"expected words.model.gz.syn1.npz .* damaged"):
            load(path, "gensim", SourceOptions())


def test_a_damaged_gzip_file_is_one_line(tmp_path, trained):
    trained.save(str(tmp_path / "words.model.gz"))
    content = (tmp_path / "words.model.gz").read_bytes()
    wrong = bytearray(content)
    wrong[len(content) // 2] ^= 255
    for damaged in (content[:-1], content[: len(content) // 2], bytes(wrong), content[:10]):
        (tmp_path / "cut.model.gz").write_bytes(damaged)
        with pytest.raises(
            SourceError, match=r"cut.model.gz: expected a whole gzip file"
        ) as raised:
            load(tmp_path / "cut.model.gz", "gensim", SourceOptions())
        assert "\n" not in str(raised.value)
    with gzip.open(tmp_path / "text.gz", "wb") as file:
        file.write(b"no pickle at all")
    with pytest.raises(SourceError, match=r"got a gzip file$"):
        load(tmp_path / "text.gz", "auto", SourceOptions())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path, trained, protocol):
    trained.save(str(tmp_path / "words.model"), pickle_protocol=protocol)
    loaded = load(tmp_path / "words.model", "gensim", SourceOptions())
    np.testing.assert_array_equal(loaded.model.syn1, trained.syn1)
    assert detect(tmp_path / "words.model") == "gensim Word2Vec model"


def test_doc2vec_and_fasttext_models_are_read_too(tmp_path):
    documents = [TaggedDocument(words, [i]) for i, words in enumerate(SENTENCES)]
    settings = {**SETTINGS, "workers": 1}
    for model in (Doc2Vec(documents, **settings), FastText(SENTENCES, bucket=100, **settings)):
        model.save(str(tmp_path / "some.model"))
        loaded = load(tmp_path / "some.model", "gensim", SourceOptions())
        assert list(loaded.labels) == model.wv.index_to_key
        hidden = np.random.default_rng(1).normal(size=(1, 12))
        full = huffman_softmax.log_probs(loaded.model, hidden)[0]
        expected = [gensim_log_prob(model, word, hidden[0]) for word in loaded.labels[:20]]
        np.testing.assert_allclose(full[:20], expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "rows", "columns", "message"),
    [
        ("vectors_vocab", -1, 12, r"vectors_vocab: expected \d+ rows, got \d+"),
        ("vectors_ngrams", 100, 11, r"vectors_ngrams: expected 12 columns, got 11"),
        ("vectors_ngrams", 1200, 0, r"vectors_vocab: expected \d+ rows"),
    ],
)
def test_vectors_of_words_that_do_not_fit_are_refused(tmp_path, name, rows, columns, message):
    model = FastText(SENTENCES, bucket=100, **{**SETTINGS, "workers": 1})
    vectors = getattr(model.wv, name).ravel()[: rows * columns or rows]
    setattr(model.wv, name, vectors.reshape(-1, columns) if columns else vectors)
    model.save(str(tmp_path / "some.model"))
    with pytest.raises(SourceError, match=message):
        load(tmp_path / "some.model", "gensim", SourceOptions())


@pytest.mark.parametrize(
    ("name", "nodes", "hidden_size", "depth"),
    [
        ("w2v-lee-v0.12.0", 806, 100, 12),
        ("d2v-lee-v0.13.0", 1750, 10, 13),
        ("model-from-gensim-3.8.0.w2v", 3, 300, 2),
    ],
)
def test_models_of_old_versions_are_read_without_running_their_pickle(
    monkeypatch, name, nodes, hidden_size, depth
):
    def refuse(*_):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    loaded = load(gensim_test_data() / name, "gensim", SourceOptions())
    assert (*loaded.model.syn1.shape, loaded.model.depth) == (nodes, hidden_size, depth)
    assert loaded.model.num_targets == nodes == len(set(loaded.labels))
    hidden = np.random.default_rng(0).normal(size=(2, hidden_size))
    np.testing.assert_allclose(
        np.exp(huffman_softmax.log_probs(loaded.model, hidden)).sum(axis=1), 1
    )


class Malicious:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (Path.write_text, (self.witness, "ran"))


def test_a_malicious_model_does_not_run(tmp_path, trained):
    trained.callbacks = (Malicious(tmp_path / "witness"),)
    try:
        trained.save(str(tmp_path / "words.model"))
    finally:
        trained.callbacks = ()
    loaded = load(tmp_path / "words.model", "gensim", SourceOptions())
    assert loaded.model.num_targets == len(trained.wv)
    assert not (tmp_path / "witness").exists()


def test_other_losses_and_other_objects_are_refused_in_one_line(tmp_path, trained):
    path = tmp_path / "some.model"
    plain = Word2Vec(SENTENCES, hs=0, negative=5, min_count=1, vector_size=4, epochs=1)
    plain.save(str(path))
    with pytest.raises(SourceError, match=r"loss: expected hs=1 .*, got hs=0 with negative=5"):
        load(path, "gensim", SourceOptions())
    trained.wv.save(str(path))
    with pytest.raises(SourceError, match=r"saved whole, got gensim.models.keyedvectors.KeyedVect"):
        load(path, "gensim", SourceOptions())
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(SourceError, match=r"some.model: expected a gensim model, got a list"):
        load(path, "gensim", SourceOptions())
    assert detect(path) is None
    path.write_bytes(b"no pickle at all")
    assert detect(path) is None
    with pytest.raises(SourceError, match=r"expected a whole pickle"):
        load(path, "gensim", SourceOptions())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("syn1"), r"expected the array syn1, got none"),
        (lambda m: m.pop("wv"), r"expected words with codes and points, got none"),
        (lambda m: m.update(syn1=[["a"]]), r"syn1: expected an array, got a list"),
        (lambda m: m.update(syn1=m["syn1"][:3]), r"path: expected nodes 0 to 2"),
        (lambda m: m["wv"].expandos.pop("point"), r"point: expected a list or an array"),
        (lambda m: m["wv"].expandos["code"][3].fill(0), r"expected one binary tree"),
        (lambda m: m["wv"].index_to_key.append(7), r"code: expected \d+, one a word, got \d+"),
        (lambda m: m["wv"].index_to_key.append("x"), r"code: expected \d+, one a word, got \d+"),
    ],
)
def test_models_with_missing_or_wrong_parts_are_refused(tmp_path, change, message):
    model = Word2Vec(SENTENCES[:50], sg=1, workers=1, **SETTINGS)
    change(model.__dict__)
    path = tmp_path / "some.model"
    path.write_bytes(pickle.dumps(model))
    with pytest.raises(ValueError, match=message) as caught:
        load(path, "gensim", SourceOptions())
    assert "\n" not in str(caught.value)


def save_with_words(trained, path, words, protocol=4) -> None:
    """Save a copy of the model in which the first words are others."""
    state = pickle.loads(pickle.dumps(trained))
    state.wv.index_to_key[: len(words)] = words
    path.write_bytes(pickle.dumps(state, protocol))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_words_that_are_not_text_become_labels(tmp_path, trained, protocol):
    words = {
        7: "7",
        -(2**70): "-1180591620717411303424",
        True: "True",
        2.5: "2.5",
        None: "None",
        np.str_("ünï"): "ünï",
        np.str_(""): "",
        np.bytes_(b"caf\xc3\xa9"): "café",
        np.int64(-3): "-3",
        np.float32(0.1): "0.1",
        np.bool_(False): "False",
        b"raw\xff": "raw\udcff",
        "a\nb": "a\nb",
        "\udc80": "\udc80",
        ("a", 3): "('a', 3)",
        (np.str_("a"), np.int8(4), None): "('a', 4, None)",
    }
    path = tmp_path / "words.model"
    save_with_words(trained, path, list(words), protocol)
    exported = export_file(path, tmp_path / "repository" / "words", source="gensim")
    labels = bundle.stored_labels(exported)
    assert list(labels[: len(words)]) == list(words.values())
    assert list(labels[len(words) :]) == trained.wv.index_to_key[len(words) :]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (np.datetime64("2026-01-01"), "got numpy"),
        (frozenset({1}), "got a frozenset"),
        ((1, (2, 3)), "got a tuple"),
        (("a" * 200, "b" * 57), "got a long tuple"),
        (2**600, "expected integers of at most 512 bits"),
        (1j, "got builtins.complex"),
        (np.str_("a" * 257), "NumPy's text of at most 256 characters"),
    ],
)
def test_a_word_without_stated_text_needs_label_file(tmp_path, trained, word, message):
    path, labels = tmp_path / "words.model", tmp_path / "labels.txt"
    save_with_words(trained, path, [word])
    to = tmp_path / "repository" / "words"
    with pytest.raises(ExportError, match=rf"words: .*{message}.*: name the targets with --labels"):
        export_file(path, to, source="gensim")
    wanted = [f"item {i}" for i in range(len(trained.wv.index_to_key))]
    labels.write_text("\n".join(wanted))
    exported = export_file(path, to, source="gensim", labels=labels)
    assert bundle.read_labels(exported) == tuple(wanted)


def test_a_file_cut_short_anywhere_is_refused(tmp_path, trained):
    trained.save(str(tmp_path / "words.model"))
    content = (tmp_path / "words.model").read_bytes()
    for keep in {*range(1, 300, 7), *range(300, len(content), len(content) // 40)}:
        (tmp_path / "cut.model").write_bytes(content[:keep])
        with pytest.raises(SourceError, match=r"cut.model: expected a whole pickle"):
            load(tmp_path / "cut.model", "gensim", SourceOptions())

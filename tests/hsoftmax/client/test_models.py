"""The methods of a model give the same results over HTTP, in asyncio, and in process."""

import asyncio
import inspect
import typing
from dataclasses import asdict

import numpy as np
import pytest

import hsoftmax
from hsoftmax.client import AsyncRemoteModel, RemoteModel
from hsoftmax.local_model import LocalModel
from hsoftmax.models import UserError, hierarchical_softmax
from hsoftmax.results import Samples, TopK
from tests.service.conftest import HIDDEN, LABELS, SERVED, TARGETS, TOLERANCE

MODEL = SERVED["words", 2]
METHODS = (
    "clusters", "describe", "distribution", "labels", "labels_of", "probabilities", "sample",
    "score", "targets_of", "top_k",
)  # fmt: skip
ROWS = np.random.default_rng(9).normal(size=(3, HIDDEN)).astype(np.float32)

CALLS = {
    "flat": lambda m: m.probabilities(ROWS, [3, 0, 10]),
    "labels": lambda m: m.probabilities(ROWS, ["word3", "word0", "étoile"]),
    "array": lambda m: m.probabilities(ROWS, np.array([3, 0, 10])),
    "matrix": lambda m: m.probabilities(ROWS, np.array([[3, 0], [1, 1], [10, 2]])),
    "lists": lambda m: m.probabilities(ROWS, [[3, 0], [1, 1], [10, 2]]),
    "uneven": lambda m: m.probabilities(ROWS, [[3, "word7"], [], [10]]),
    "one row": lambda m: m.probabilities(ROWS[:1], [3]),
    "one row of one": lambda m: m.probabilities(ROWS[:1], [[3]]),
    "one row of many": lambda m: m.probabilities(ROWS[:1], [[3, 4, 5]]),
    "one each": lambda m: m.probabilities(ROWS, [[3], [4], [5]]),
    "no targets": lambda m: m.probabilities(ROWS[:1], [[]]),
    "many targets": lambda m: m.probabilities(ROWS[:1], [list(range(TARGETS)) * 300]),
    "log": lambda m: m.probabilities(ROWS, [3, 0, 10], log=True),
    "distribution": lambda m: m.distribution(ROWS),
    "log distribution": lambda m: m.distribution(ROWS, log=True),
    "clusters": lambda m: m.clusters(ROWS),
    "top_k": lambda m: m.top_k(ROWS),
    "k": lambda m: m.top_k(ROWS, 3, log=True),
    "threshold": lambda m: m.top_k(ROWS, 3, threshold=0.1),
    "max_blocks": lambda m: m.top_k(ROWS, TARGETS, max_blocks=1),
    "sample": lambda m: m.sample(ROWS, 5, seed=7),
    "page": lambda m: m.labels(prefix="word", search="o", start=2, limit=3),
    "labels_of": lambda m: m.labels_of([10, 3, 3]),
    "many labels_of": lambda m: m.labels_of(np.arange(4000) % TARGETS),
    "targets_of": lambda m: m.targets_of(["étoile", "word3"]),
    "no targets_of": lambda m: m.targets_of([]),
    "describe": lambda m: m.describe(),
    "doubles": lambda m: m.distribution(ROWS.astype(np.float64).tolist()),
    "fortran": lambda m: m.distribution(np.asfortranarray(ROWS)),
}


@pytest.fixture(scope="module")
def local(repository) -> LocalModel:
    return hsoftmax.load(repository / "words")


def expect_same(got: object, expected: object) -> None:
    """Assert the same types and the same numbers, to the bit."""
    assert type(got) is type(expected)
    if isinstance(got, np.ndarray):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    elif isinstance(got, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            expect_same(one, other)
    elif isinstance(got, TopK | Samples):
        for name, value in vars(got).items():
            expect_same(value, getattr(expected, name))
    else:
        assert got == expected


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_result_is_the_same_over_http_and_in_process(client, async_client, local, call):
    expected = call(local)
    expect_same(call(client.model("words")), expected)

    async def ask() -> object:
        async with async_client() as client:
            return await call(client.model("words"))

    expect_same(asyncio.run(ask()), expected)


@pytest.mark.parametrize("remote", [True, False])
def test_results_equal_the_reference(client, local, remote):
    model = client.model("words") if remote else local
    full = np.exp(hierarchical_softmax.log_probs(MODEL, ROWS))
    np.testing.assert_allclose(model.distribution(ROWS), full, rtol=TOLERANCE)
    np.testing.assert_allclose(
        model.probabilities(ROWS, [3, 0, 10]), full[range(3), [3, 0, 10]], rtol=TOLERANCE
    )
    for row, top in zip(full, model.top_k(ROWS, 4), strict=True):
        order = np.argsort(-row)[:4]
        assert top.targets.tolist() == order.tolist()
        assert top.labels == tuple(LABELS[t] for t in order)
        np.testing.assert_allclose(top.probabilities, row[order], rtol=TOLERANCE)


def test_the_methods_are_the_same():
    for name in METHODS:
        expected = inspect.signature(getattr(LocalModel, name), eval_str=True)
        for other in (RemoteModel, AsyncRemoteModel):
            got = inspect.signature(getattr(other, name), eval_str=True)
            assert list(got.parameters.values()) == list(expected.parameters.values()), name
        assert getattr(LocalModel, name).__doc__
    public = {name for name in vars(LocalModel) if not name.startswith("_")}
    assert public == set(METHODS)
    for other in (RemoteModel, AsyncRemoteModel):
        assert {name for name in vars(other) if not name.startswith("_")} == set(METHODS)


def test_a_tiny_probability_does_not_become_zero(client, local):
    rows = np.zeros((1, HIDDEN), dtype=np.float32)
    rows[0, 0] = 40
    expected = local.distribution(rows, log=True)
    assert expected.min() < -150  # float32 holds no such probability
    got = client.model("words").distribution(rows)
    assert got.min() > 0
    np.testing.assert_allclose(np.log(got), expected, rtol=1e-6)


def test_a_version_is_chosen(client, repository):
    first = hsoftmax.load(repository / "words" / "1")
    expect_same(client.model("words", 1).distribution(ROWS), first.distribution(ROWS))
    assert client.model("words", "1").describe().version == "1"
    (page,) = [client.model("words", 1).top_k(ROWS[:1], 2)]
    assert page[0].targets.tolist() == first.top_k(ROWS[:1], 2)[0].targets.tolist()


def test_models_are_listed(client, local):
    names = [info.name for info in client.models()]
    assert names == ["lid", "plain", "words"]
    assert client.models()[2] == local.describe()
    assert asdict(local.describe())["num_targets"] == TARGETS


def test_a_model_of_fasttext_understands_its_labels(client, repository):
    row = [[0.1, -0.2, 0.3, 0.4]]
    for model in (client.model("lid"), hsoftmax.load(repository / "lid")):
        one, other = model.probabilities(row, [["__label__fr", "fr"]])[0]
        assert one == other
        assert model.targets_of(["__label__en"]).tolist() == model.targets_of(["en"]).tolist()
        assert model.labels(prefix="__label__f").labels == ("fr",)
        (record,) = model.score([{"input": row[0], "target": "__label__fr"}])
        assert record["log_prob"] == pytest.approx(np.log(one))


def test_a_model_without_labels_has_none(client, repository):
    for model in (client.model("plain"), hsoftmax.load(repository / "plain")):
        assert model.top_k(ROWS)[0].labels is None
        assert model.sample(ROWS).labels is None
        assert not model.describe().has_labels
        with pytest.raises(UserError, match="has none"):
            model.labels()


def test_a_draw_without_a_seed_says_its_seed(client, local):
    for model in (client.model("words"), local):
        drawn = model.sample(ROWS, 4)
        expect_same(model.sample(ROWS, 4, seed=drawn.seed), drawn)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: m.probabilities(ROWS, [3, 0]), "targets: expected 3, one for each row, got 2"),
        (lambda m: m.probabilities(ROWS, [[3, 4, 5]]), "targets: expected 3, one for each row"),
        (lambda m: m.probabilities(ROWS, [3, 0, 11]), "targets row 2: expected 0 to 10, got 11"),
        (lambda m: m.probabilities(ROWS, [3, 0, -1]), "targets row 2: expected 0 to 10, got -1"),
        (lambda m: m.probabilities(ROWS, ["a", 0, 1]), "targets: no label 'a' in words"),
        (lambda m: m.top_k(ROWS, 0), "k: expected 1 to 11, got 0"),
        (lambda m: m.top_k(ROWS, 12), "k: expected 1 to 11, got 12"),
        (lambda m: m.top_k(ROWS, threshold=2), "threshold: expected 0 to 1, got 2"),
        (lambda m: m.top_k(ROWS, max_blocks=-1), "max_blocks: expected 0 "),
        (lambda m: m.distribution(ROWS[:, :3]), r"inputs: expected rows of 8 numbers, got shape"),
        (lambda m: m.distribution(ROWS[:0]), r"inputs: expected rows of 8 numbers, got shape"),
        (lambda m: m.distribution(ROWS[0]), r"inputs: expected \[rows, hidden_size\], got \[8\]"),
        (lambda m: m.distribution([[1.0], [1.0, 2.0]]), "inputs: expected rows of one length"),
        (lambda m: m.distribution(ROWS * np.nan), "inputs row 0, position 0: expected a finite"),
        (lambda m: m.distribution([[1e300] * HIDDEN]), "inputs row 0, position 0: expected a fini"),
        (
            lambda m: m.distribution([[1e38] * HIDDEN]),
            "inputs row 0: expected numbers whose logits",
        ),
        (lambda m: m.distribution(ROWS.astype(bool)), "inputs: expected rows of numbers, or texts"),
        (lambda m: m.distribution(["a text"]), "inputs"),
        (lambda m: m.distribution("a text"), "inputs: expected a list of rows, got one text"),
        (lambda m: m.distribution([["some", "words"]]), "inputs"),
        (lambda m: m.distribution({"tokens": [[1, 2]]}), "inputs"),
        (lambda m: m.labels_of([11]), "expected 0 to 10, got 11"),
        (lambda m: m.targets_of(["nope"]), "no label 'nope' in words"),
        (lambda m: m.sample(ROWS, 0), "num_samples: expected"),
        (lambda m: next(m.score([{}], "sample")), "task: expected one of target_log_prob"),
        (lambda m: next(m.score([{}], "top_k", n=3)), "expected .*k, .*got 'n'"),
    ],
)
def test_a_call_that_cannot_be_is_refused_with_one_sentence(client, local, call, sentence):
    for model in (client.model("words"), local):
        with pytest.raises(UserError, match=sentence):
            call(model)


def test_the_types_of_results_can_be_read():
    hints = typing.get_type_hints(RemoteModel.top_k)
    assert hints["return"] == list[TopK]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.top_k(ROWS, "2"), "k: expected an integer, got '2'"),
        (lambda m: m.top_k(ROWS, 2.0), "k: expected an integer, got 2.0"),
        (lambda m: m.top_k(ROWS, True), "k: expected an integer, got True"),
        (lambda m: m.top_k(ROWS, threshold="0.5"), "threshold: expected a number, got '0.5'"),
        (lambda m: m.top_k(ROWS, max_blocks="1"), "max_blocks: expected an integer, got '1'"),
        (lambda m: m.sample(ROWS, "3"), "num_samples: expected an integer, got '3'"),
        (lambda m: m.sample(ROWS, 3, seed="1"), "seed: expected an integer, got '1'"),
        (lambda m: m.labels(start="0"), "start: expected an integer from 0, got '0'"),
        (lambda m: m.labels(limit=0), "limit: expected an integer from 1, got 0"),
    ],
)
def test_arguments_of_other_types_are_one_sentence_in_process(local, call, message):
    with pytest.raises(UserError, match=message):
        call(local)


def test_integers_of_numpy_are_integers(local):
    (row,) = local.top_k(ROWS[:1], np.int64(2))
    assert len(row.targets) == 2


@pytest.mark.parametrize("name", ["words", "plain", "lid"])
def test_a_model_describes_itself_the_same_over_http_and_in_process(client, repository, name):
    described = client.model(name).describe()
    assert described == hsoftmax.load(repository / name).describe()
    is_fasttext = name == "lid"
    assert described.label_prefix == ("__label__" if is_fasttext else "")
    assert described.inputs == (("hidden", "text", "words") if is_fasttext else ("hidden",))


def test_a_model_without_clusters_says_what_to_call(repository):
    with pytest.raises(UserError, match=r"lid has no clusters, .*: call top_k or distribution"):
        hsoftmax.load(repository / "lid").clusters([[0.1, -0.2, 0.3, 0.4]])


@pytest.mark.parametrize(
    ("path", "next_step"),
    [
        ("nowhere/words", "give REPOSITORY/NAME or REPOSITORY/NAME/VERSION, which hsoftmax export"),
        ("", "give one of the bundles in it, such as .*/lid"),
    ],
)
def test_a_bundle_that_is_not_there_is_one_line_with_the_next_step(repository, path, next_step):
    with pytest.raises(UserError, match=f"expected a bundle, got no bundle.json: {next_step}"):
        hsoftmax.load(repository / path)

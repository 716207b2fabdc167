"""POST /v1/models/{name}/children: opens a hierarchy level by level, down to the targets."""

import numpy as np
import pytest

from hsoftmax.exporter import export_file, export_model, parse_destination
from tests.exporter.sources.test_tree import HIDDEN, arrays
from tests.models.test_taxonomy import node_log_probs
from tests.models.trees import random_huffman
from tests.service.conftest import expect_error, random_model, serving

NAMES = ("animal", "mammal", "dog", "wolf", "cat", "bird", "poodle", "hound",
         "plant", "moss", "life")  # fmt: skip
PARENT = np.array([10, 0, 1, 1, 1, 0, 2, 2, 10, 8, -1])
URL = "/v1/models/life/children"
# `animal` has mammal and bird; `mammal` dog, wolf and cat; `dog` two; `plant` only moss.


@pytest.fixture(scope="module")
def tree_client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("children")
    np.savez(folder / "tree.npz", **arrays(PARENT))
    (folder / "names.txt").write_text("\n".join(NAMES))
    repository = folder / "repository"
    export_file(
        folder / "tree.npz", repository / "life" / "1", source="tree", labels=folder / "names.txt"
    )
    export_model(random_huffman(5, 8), parse_destination(repository / "binary" / "1"))
    export_model(random_model(3), parse_destination(repository / "plain" / "1"))
    with serving(repository) as client:
        yield client


@pytest.fixture
def children(tree_client):
    """Function that asks for children of the tree and returns the answer."""

    def children(url: str = URL, **query) -> dict:
        response = tree_client.post(url, json={"inputs": HIDDEN.tolist(), "log": True, **query})
        assert response.status_code == 200, response.text
        return response.json()

    return children


@pytest.fixture(scope="module")
def marginals():
    of = arrays(PARENT)
    expected = node_log_probs(PARENT.tolist(), of["weight"], of["bias"], HIDDEN)
    return lambda *names: expected[:, [NAMES.index(name) for name in names]]


def labels_of(nodes: list[dict]) -> list[str]:
    return [node["label"] for node in nodes]


def test_a_tree_opens_level_by_level(children, marginals):
    top = children()
    assert top["path"] == [{"node": None, "label": "life", "num_targets": 6}]
    assert top["path_log_probabilities"] == [[0.0]] * 3
    assert (top["total"], top["next"]) == (2, None)
    animal, plant = top["children"]
    assert (animal["label"], animal["num_targets"]) == ("animal", 5)
    assert plant == {"target": 5, "label": "moss", "chain": ["plant", "moss"], "num_targets": 1}
    np.testing.assert_allclose(top["log_probabilities"], marginals("animal", "plant"), atol=1e-5)
    mammal = children(node=animal["node"])["children"][0]
    dog = children(node=mammal["node"])["children"][0]
    below = children(node=dog["node"])
    assert labels_of(below["path"]) == ["life", "animal", "mammal", "dog"]
    numbers = [None, *(one["node"] for one in (animal, mammal, dog))]
    assert [one["node"] for one in below["path"]] == numbers
    np.testing.assert_allclose(
        np.array(below["path_log_probabilities"])[:, 1:], marginals("animal", "mammal", "dog"),
        atol=1e-5,
    )  # fmt: skip
    assert below["children"] == [
        {"target": 3, "label": "poodle", "num_targets": 1},
        {"target": 4, "label": "hound", "num_targets": 1},
    ]
    np.testing.assert_allclose(below["log_probabilities"], marginals("poodle", "hound"), atol=1e-5)


def test_a_node_is_named_by_number_by_label_or_by_a_target_below(children):
    by_label = children(node="dog")
    assert children(node=by_label["path"][-1]["node"]) == by_label
    assert children(target="hound") == children(target=4) == by_label
    assert children(target="moss") == children(node="life") == children(node=None) == children()
    moss = children(node="plant")  # whose only child is the target
    assert labels_of(moss["children"]) == ["moss"]
    assert moss["log_probabilities"] == [[row[1]] for row in children()["log_probabilities"]]


def test_probabilities_are_those_of_the_log_probabilities(children):
    linear = children(node="mammal", log=False)
    log = children(node="mammal")
    np.testing.assert_allclose(np.log(linear["probabilities"]), log["log_probabilities"], atol=1e-6)
    np.testing.assert_allclose(
        np.sum(linear["probabilities"], axis=1),
        [row[-1] for row in linear["path_probabilities"]],
        rtol=1e-6,
    )


def test_children_come_in_pages(children):
    whole, start, found = children(node="mammal"), 0, []
    assert whole["total"] == 3
    while start is not None:
        page = children(node="mammal", start=start, limit=2)
        assert page["total"] == 3
        found += zip(page["children"], zip(*page["log_probabilities"]))  # noqa: B905
        start = page["next"]
    assert found == list(zip(whole["children"], zip(*whole["log_probabilities"])))  # noqa: B905
    beyond = children(node="mammal", start=7)
    assert (beyond["children"], beyond["next"]) == ([], None)
    assert beyond["log_probabilities"] == [[], [], []]
    one = {"inputs": HIDDEN[:1].tolist(), "node": "mammal"}
    likeliest = children(**one, order="probability", limit=2)
    [numbers] = likeliest["log_probabilities"]
    assert numbers == sorted(children(**one)["log_probabilities"][0], reverse=True)[:2]
    assert likeliest["next"] == 2


def test_other_families_open_too(children):
    binary, waiting = [], [None]
    while waiting:
        url, row = "/v1/models/binary/children", {"inputs": [[0.1] * 8]}
        for child in children(url, node=waiting.pop(), **row)["children"]:
            if "target" in child:
                binary.append(child["target"])
            else:
                waiting.append(child["node"])
    assert sorted(binary) == [0, 1, 2, 3, 4]
    clusters = children("/v1/models/plain/children")
    assert [one["node"] for one in clusters["children"]] == [0, 1, 2, 3]
    below = children("/v1/models/plain/children", node=3)
    assert [one["target"] for one in below["children"]] == [9, 10]  # without the padding


@pytest.mark.parametrize(
    ("query", "code", "sentence"),
    [
        ({"node": 19}, "unknown_node", "node: expected 0 to 15, got 19"),
        ({"node": -1}, "unknown_node", "node: expected 0 to 15, got -1"),
        ({"node": "mamal"}, "unknown_label", "node: no label 'mamal' in life"),
        ({"node": "cat"}, "invalid_query", "got 'cat' of target 1: give it as target"),
        ({"target": "dog"}, "invalid_query", "got 'dog' of an inner node: give it as node"),
        ({"target": 6}, "target_out_of_range", "target: expected 0 to 5, got 6"),
        ({"target": 0, "node": 0}, "invalid_query", "node: expected no target beside it, got both"),
        ({"start": -1}, "invalid_query", "start: expected 0 or more, got -1"),
        ({"limit": 0}, "invalid_query", "limit: expected 1 to 10000, got 0"),
        ({"limit": 10_001}, "invalid_query", "limit: expected 1 to 10000, got 10001"),
        ({"order": "probability"}, "invalid_query", "order: expected hierarchy for several rows"),
        ({"inputs": [[3e38] * 8]}, "logits_overflow", "row 0: expected numbers whose logits"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(tree_client, query, code, sentence):
    answer = tree_client.post(URL, json={"inputs": HIDDEN.tolist(), **query})
    expect_error(answer, 422, code, sentence)


def test_the_answer_is_json_alone(tree_client):
    query = {"inputs": HIDDEN.tolist()}
    answer = tree_client.post(URL, json=query, headers={"accept": "application/x-npy"})
    expect_error(answer, 406, "not_acceptable", "expected JSON")
    paths = tree_client.get("/openapi.json").json()["paths"]
    response = paths["/v1/models/{name}/children"]["post"]["responses"]["200"]
    assert list(response["content"]) == ["application/json"]
    query = paths["/v1/models/{name}/children"]["post"]["requestBody"]["content"]
    example = query["application/json"]["example"]
    assert tree_client.post("/v1/models/plain/children", json=example).status_code == 200

"""Inner nodes of a tree: asked for by label wherever a target may be a label."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import hsoftmax
from hsoftmax import bundle
from hsoftmax.cli import run
from hsoftmax.exporter import export_file
from hsoftmax.models import UserError
from hsoftmax.runtime.native import load_library, open_kernel
from tests.exporter.sources.test_tree import (
    HIDDEN,
    LEAVES,
    NODES,
    PARENT,
    arrays,
    random_taxonomy,
    write,
)
from tests.models.test_taxonomy import node_log_probs
from tests.service.conftest import expect_error, serving
from tests.service.jobs.conftest import JobsClient
from tests.service.processes import Process

INNER = [0, 1, 2]
NAMES = [NODES[i] for i in INNER]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    (folder / "names.txt").write_text("\n".join(NODES))
    exported = export_file(
        write(folder), folder / "repository" / "animals", source="tree",
        labels=folder / "names.txt",
    )  # fmt: skip
    of = arrays()
    expected = node_log_probs(PARENT.tolist(), of["weight"], of["bias"], HIDDEN)
    return SimpleNamespace(path=exported.path, repository=folder / "repository", expected=expected)


@pytest.fixture(scope="module")
def tree_client(tree, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    with serving(tree.repository, state=state) as client:
        yield client, JobsClient(client, state)


def rows(**more):
    return [{"input": row.tolist(), "targets": list(NODES), **more} for row in HIDDEN]


def test_queries_answer_the_marginals_of_inner_nodes(tree, tree_client):
    client, _ = tree_client
    query = {"inputs": HIDDEN.tolist(), "targets": [list(NODES)] * 3, "log": True}
    answer = client.post("/v1/models/animals/probabilities", json=query).json()
    np.testing.assert_allclose(answer["log_probabilities"], tree.expected, atol=1e-5)
    assert client.get("/v1/models/animals").json()["inner_nodes"] == 3
    for alone in NAMES:  # the same digits alone and among others
        query |= {"inputs": HIDDEN[:1].tolist(), "targets": [[alone]]}
        one = client.post("/v1/models/animals/probabilities", json=query).json()
        place = NODES.index(alone)
        assert one["log_probabilities"][0][0] == answer["log_probabilities"][0][place]


def test_the_number_of_an_inner_node_is_no_target(tree_client):
    client, _ = tree_client
    for target in (6, 8, -1):
        query = {"inputs": HIDDEN[:1].tolist(), "targets": [["animal", target]]}
        answer = client.post("/v1/models/animals/probabilities", json=query)
        sentence = f"targets row 0: expected 0 to 5, got {target}"
        expect_error(answer, 422, "target_out_of_range", sentence)


def test_streams_and_jobs_answer_them(tree, tree_client):
    client, jobs = tree_client
    body = "\n".join(map(json.dumps, rows()))
    stream = client.post("/v1/models/animals/score", content=body,
                         headers={"content-type": "application/x-ndjson"})  # fmt: skip
    *records, _ = map(json.loads, stream.text.splitlines())
    np.testing.assert_allclose([r["log_prob"] for r in records], tree.expected, atol=1e-5)
    lines = [{"custom_id": str(i), **row} for i, row in enumerate(rows())]
    file = jobs.upload("\n".join(map(json.dumps, lines)), "rows.ndjson")
    endpoint = "/v1/models/animals/score"
    batch = jobs.until(jobs.create(input_file_id=file["id"], endpoint=endpoint)["id"])
    assert [r["log_prob"] for r in jobs.records(batch)] == [r["log_prob"] for r in records]


@pytest.mark.parametrize("native", ["on", "off"])
def test_files_answer_them(tree, tmp_path, native):
    path = tmp_path / "in.ndjson"
    path.write_text("\n".join(map(json.dumps, rows())))
    out = tmp_path / "out.ndjson"
    task = ["--task", "target_log_prob", "--native", native]
    assert run(["score", str(tree.path), str(path), str(out), *task]) == 0
    records = map(json.loads, out.read_text().splitlines())
    np.testing.assert_allclose([r["log_prob"] for r in records], tree.expected, atol=1e-5)


def test_files_are_scored_through_a_server(tree, tmp_path):
    path, out = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    path.write_text("\n".join(map(json.dumps, rows())))
    process = Process(tree.repository)
    try:
        to = ["--task", "target_log_prob", "--url", f"http://{process.address}"]
        assert run(["score", "animals", str(path), str(out), *to]) == 0
    finally:
        process.end()
    records = map(json.loads, out.read_text().splitlines())
    np.testing.assert_allclose([r["log_prob"] for r in records], tree.expected, atol=1e-5)


def test_python_answers_them(tree):
    model = hsoftmax.load(tree.path)
    got = model.probabilities(HIDDEN, [list(NODES)] * 3, log=True)
    np.testing.assert_allclose(got, tree.expected, atol=1e-5)
    assert model.targets_of(["cat"]).tolist() == [0]
    with pytest.raises(UserError, match="got 'animal' of an inner node: give the label itself"):
        model.targets_of(["cat", "animal"])


def test_labels_list_inner_nodes_after_the_targets(tree, tree_client):
    client, _ = tree_client
    url = "/v1/models/animals/labels"
    names = [NODES[leaf] for leaf in LEAVES]
    everything = client.get(url).json()
    assert everything["labels"] == names + NAMES
    assert everything["targets"] == [0, 1, 2, 3, 4, 5, None, None, None]
    page = client.get(url, params={"start": 5, "limit": 2}).json()
    assert (page["targets"], page["labels"], page["next"]) == ([5, None], ["hound", "animal"], 7)
    found = client.get(url, params={"label": ["plant", "oak"]}).json()
    assert (found["targets"], found["labels"]) == ([None, 4], ["plant", "oak"])
    expect_error(client.get(url, params={"ids": "6"}), 422, "target_out_of_range")
    local = hsoftmax.load(tree.path).labels()
    assert (list(local.targets), list(local.labels)) == (everything["targets"], names + NAMES)


def test_a_label_of_several_nodes_names_no_inner_node(tmp_path):
    names = list(NODES)
    names[0] = names[2] = "beast"
    (tmp_path / "names.txt").write_text("\n".join(names))
    notes = []
    exported = export_file(
        write(tmp_path), tmp_path / "repository" / "animals", source="tree",
        labels=tmp_path / "names.txt", on_note=notes.append,
    )  # fmt: skip
    labels = bundle.read_labels(exported)
    assert bundle.read_inner_labels(exported, labels) == ("plant",)
    assert notes == ["2 inner nodes have no label, because other nodes have the same one"]


def test_inner_nodes_of_a_deep_tree_have_the_same_bits_alone_and_in_any_batch(tmp_path):
    parent = random_taxonomy(300, 12, seed=2)
    np.savez(tmp_path / "tree.npz", **arrays(parent))
    (tmp_path / "names.txt").write_text("\n".join(f"node {i}" for i in range(300)))
    exported = export_file(
        tmp_path / "tree.npz", tmp_path / "repository" / "deep", source="tree",
        labels=tmp_path / "names.txt",
    )  # fmt: skip
    manifest, tensors = exported.manifest, bundle.load_tensors(exported)
    kernel = open_kernel(
        load_library(), manifest.family, "target_log_prob", tensors, manifest.attributes
    )
    numbers = np.random.default_rng(0).permutation(300)
    row = np.zeros(300, dtype=np.int64)
    (together,) = kernel({"hidden": HIDDEN[:1], "row": row, "target": numbers})
    alone = [kernel({"hidden": HIDDEN[:1], "row": row[:1], "target": numbers[i : i + 1]})[0][0]
             for i in range(300)]  # fmt: skip
    np.testing.assert_array_equal(together, alone)
    of = arrays(parent)
    names = bundle.read_inner_labels(exported, bundle.read_labels(exported))
    inner = [int(name.removeprefix("node ")) for name in names]
    assert sorted(inner) == sorted(set(parent.tolist()) - {-1})
    assert all(above not in inner[i:] for i, above in enumerate(parent[inner]))  # parents first
    order = [n for n in range(300) if n not in inner] + inner
    expected = node_log_probs(parent.tolist(), of["weight"], of["bias"], HIDDEN[:1])[0][order]
    np.testing.assert_allclose(together, expected[numbers], atol=1e-5)

"""Served and refused bundles, and their effect on readiness."""

import io
import json
import shutil
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from hsoftmax.runtime.devices import ON_CPU
from hsoftmax.service import Settings, StartError, create_app
from hsoftmax.service.context import context_of
from hsoftmax.service.logging import json_log
from hsoftmax.service.repository.directory import scan
from hsoftmax.service.repository.repository import Repository
from tests.service.conftest import HIDDEN, expect_error, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
QUERY_OF_ALL = {"inputs": QUERY["inputs"]}


def spoil(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_served_bundles_are_listed(client):
    models = client.get("/v1/models").json()["models"]
    assert [m["name"] for m in models] == ["plain", "words"]
    words = client.get("/v1/models/words").json()
    assert words == models[1]
    assert words | {"digest": ""} == {
        "id": "words",
        "object": "model",
        "created": words["created"],
        "owned_by": "hsoftmax",
        "name": "words",
        "version": "2",
        "versions": ["1", "2"],
        "refused": {},
        "digest": "",
        "family": "HierarchicalSoftmax",
        "hidden_size": 8,
        "num_targets": 11,
        "num_clusters": 4,
        "precision": "fp32",
        "padding": "mask",
        "labels": True,
        "aliases": {},
        "inputs": ["hidden"],
        "encoder": None,
        "inner_nodes": 0,
        "example": None,
        "label_prefix": "",
        "tasks": ["cluster_log_probs", "log_probs", "sample", "target_log_prob", "top_k"],
        "device": "cpu",
        "devices": dict.fromkeys(words["tasks"], "cpu"),
        "device_fallback": None,
        "native": ["sample", "target_log_prob", "top_k"],
        "providers": ["CPUExecutionProvider"],
        **{name: words[name] for name in ("accuracy", "verification", "size_bytes")},
    }
    assert 0 <= time.time() - words["created"] < 86_400
    assert models[0]["labels"] is False
    assert client.get("/v1/models/words?version=1").json()["version"] == "1"


def test_a_model_has_the_size_and_the_measured_error_of_its_bundle(client, repository):
    words = client.get("/v1/models/words").json()
    folder = repository / "words" / "2"
    manifest = json.loads((folder / "bundle.json").read_bytes())
    parts = [folder / name for name in manifest["files"]]
    assert words["size_bytes"] == sum(path.stat().st_size for path in parts) > 0
    assert words["accuracy"] == manifest["accuracy"]
    assert words["verification"] == manifest["verification"]
    assert 0 < words["accuracy"][0]["mean_error"] <= words["accuracy"][0]["max_error"] < 1e-5
    assert all(check["passed"] for check in words["verification"])


def test_served_bundles_are_listed_as_in_openais_api(client):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    shared = ("id", "object", "created", "owned_by")
    assert listed["data"] == [{name: m[name] for name in shared} for m in listed["models"]]
    assert [m["id"] for m in listed["data"]] == ["plain", "words"]


def test_readiness_names_the_served_bundles(client):
    answer = client.get("/healthz/ready")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "models": ["plain", "words"], "refused": {}}
    assert client.get("/healthz/live").json() == {"status": "live"}


def test_an_empty_repository_is_alive_but_not_ready(tmp_path):
    with serving(tmp_path) as client:
        answer = client.get("/healthz/ready")
        expect_error(answer, 503, "not_ready", "the repository has no bundle")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/healthz/live").status_code == 200
        assert client.get("/v1/models").json() == {"object": "list", "models": [], "data": []}
        assert b"hsoftmax_ready 0.0" in client.get("/metrics").content


def loaded(repository) -> dict:
    """The log line of the event `loaded`."""
    stream = io.BytesIO()
    context_of(create_app(Settings(repository=repository), log=json_log("info", stream))).load()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return next(line for line in lines if line["event"] == "loaded")


def test_the_log_names_what_is_loaded_and_why_the_rest_is_refused(copy):
    spoil(copy / "words" / "2" / "weights.bin")
    told = loaded(copy)
    assert (told["level"], told["bundles"]) == ("info", ["plain", "words"])
    assert told["refused"].keys() == {"words/2"}
    assert told["refused"]["words/2"].startswith("words/2/weights.bin: expected SHA-256")


def test_a_log_that_has_no_bundle_to_name_is_a_warning(copy, tmp_path):
    for path in copy.glob("*/*/weights.bin"):
        spoil(path)
    told = loaded(copy)
    assert (told["level"], told["bundles"]) == ("warning", [])
    assert sorted(told["refused"]) == ["plain/7", "words/1", "words/2"]
    (tmp_path / "empty").mkdir()
    told = loaded(tmp_path / "empty")
    assert (told["level"], told["bundles"], told["refused"]) == ("warning", [], {})
    assert "one bundle" in told["expected"]


def test_nothing_is_answered_before_the_bundles_are_loaded(repository):
    from starlette.testclient import TestClient

    client = TestClient(create_app(Settings(repository=repository)))  # never started
    for answer in (
        client.post("/v1/models/words/top_k", json=QUERY),
        client.get("/v1/models/words"),
        client.get("/healthz/ready"),
    ):
        expect_error(answer, 503, "not_ready", "bundles are being loaded")


@pytest.mark.parametrize("file", ["weights.bin", "top_k.onnx", "labels.txt", "bundle.json"])
def test_a_bundle_with_one_altered_byte_is_refused_and_the_others_served(copy, file):
    spoil(copy / "words" / "2" / file)
    with serving(copy) as client:
        ready = client.get("/healthz/ready").json()
        assert ready["models"] == ["plain", "words"]
        (refused,) = ready["refused"].items()
        assert refused[0] == "words/2"
        assert str(copy) not in refused[1]
        answer = client.post("/v1/models/words/probabilities", json=QUERY)
        assert answer.json()["version"] == "1"
        pinned = client.post("/v1/models/words/probabilities", json=QUERY | {"version": 2})
        expect_error(pinned, 404, "unknown_version", "words: expected version 1, got '2'")


def test_when_all_are_refused_readiness_says_why(copy):
    shutil.rmtree(copy / "plain")
    for version in "12":
        spoil(copy / "words" / version / "weights.bin")
    with serving(copy) as client:
        answer = client.get("/healthz/ready")
        expect_error(answer, 503, "not_ready", "words/1/weights.bin: expected SHA-256")
        answer = client.post("/v1/models/words/top_k", json=QUERY)
        expect_error(answer, 404, "unknown_bundle", "was refused")


def test_hashes_may_be_left_unchecked(copy):
    spoil(copy / "words" / "2" / "weights.bin")
    with serving(copy, check_hashes=False) as client:
        assert client.get("/healthz/ready").json()["refused"] == {}


def test_a_graph_that_does_not_load_is_refused_even_with_hashes_unchecked(copy):
    path = copy / "words" / "2" / "top_k.onnx"
    path.write_bytes(bytes(path.stat().st_size))
    with serving(copy, check_hashes=False) as client:
        (reason,) = client.get("/healthz/ready").json()["refused"].values()
        assert reason.startswith("words/2/top_k.onnx: expected a graph that runs, got:")


def test_hidden_folders_and_versions_that_are_no_number_are_ignored(copy):
    words = copy / "words"
    for name in (".1.tmp", "0", "01", "latest", "-3", "3.5"):
        shutil.copytree(words / "1", words / name)
    shutil.copytree(words, copy / ".hidden")
    (copy / "README").write_text("not a bundle")
    with serving(copy) as client:
        ready = client.get("/healthz/ready").json()
        assert ready == {"status": "ready", "models": ["plain", "words"], "refused": {}}
        assert client.get("/v1/models/words").json()["versions"] == ["1", "2"]


def test_versions_are_ordered_as_numbers(copy):
    (copy / "words" / "2").rename(copy / "words" / "10")
    (copy / "words" / "1").rename(copy / "words" / "9")
    with serving(copy) as client:
        about = client.get("/v1/models/words").json()
        assert (about["version"], about["versions"]) == ("10", ["9", "10"])


def test_a_repository_that_is_not_there_is_an_error_at_start(tmp_path):
    with pytest.raises(StartError, match="repository: expected a folder, got none at"):
        create_app(Settings(repository=tmp_path / "nowhere"))


def test_a_task_that_the_bundle_lacks_is_not_found(repository):
    with serving(repository) as client:
        served = client.app.state.context.repository.find("words")
        del served.sessions["sample"]
        answer = client.post("/v1/models/words/sample", json={"inputs": QUERY["inputs"]})
        expect_error(
            answer, 404, "unknown_task", "words version 2 has no task sample: ask clusters or"
        )


def test_readiness_reports_a_failure_to_read_the_repository(tmp_path):
    class Unreadable(Repository):
        def load(self) -> None:
            raise PermissionError(str(tmp_path))

    context = create_app(Settings(repository=tmp_path)).state.context
    broken = Unreadable(tmp_path, device=ON_CPU, check_hashes=True, log=context.log)
    object.__setattr__(context, "repository", broken)
    context.load()
    assert context.health.failure == "the repository could not be read"


@pytest.mark.parametrize(
    ("folder", "name", "versions"),
    [
        ("words", "words", ["1", "2"]),
        ("words/2", "words", ["2"]),
        ("plain/latest", "latest", ["1"]),
    ],
)
def test_a_model_folder_and_one_bundle_are_served(copy, folder, name, versions):
    shutil.copytree(copy / "plain" / "7", copy / "plain" / "latest")
    with serving(copy / folder) as client:
        about = client.get(f"/v1/models/{name}").json()
        assert about["versions"] == versions
        assert client.get("/v1/models").json()["models"] == [about]
        answer = client.post(f"/v1/models/{name}/top_k", json={"inputs": QUERY["inputs"]})
        assert (answer.status_code, answer.json()["version"]) == (200, versions[-1])


def test_a_bundle_is_named_after_its_folder_whatever_leads_to_it(copy, monkeypatch):
    monkeypatch.chdir(copy / "words" / "2")
    assert [(one.name, one.version) for one in scan(Path())] == [("words", 2)]
    monkeypatch.chdir(copy / "words")
    assert [(one.name, one.version) for one in scan(Path())] == [("words", 1), ("words", 2)]


@pytest.mark.parametrize(("folder", "versions"), [("words", ["1", "2"]), ("words/2", ["1"])])
def test_a_model_has_the_name_that_is_given(copy, folder, versions):
    mounted = (copy / folder).rename(copy / "models")
    with serving(mounted, model_name="census") as client:
        about = client.get("/v1/models/census").json()
        assert (about["name"], about["versions"]) == ("census", versions)
        assert client.post("/v1/models/census/top_k", json=QUERY_OF_ALL).status_code == 200
        assert client.get("/v1/models/models").status_code == 404


def test_one_name_does_not_stand_for_a_repository(repository):
    sentence = "model_name: expected a model folder or one bundle, got a repository of plain, words"
    with pytest.raises(StartError, match=sentence):
        create_app(Settings(repository=repository, model_name="census"))


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "two words"])
def test_a_name_is_a_segment_of_a_path(repository, name):
    with pytest.raises(ValidationError, match="model_name"):
        Settings(repository=repository, model_name=name)


def test_a_new_version_of_a_model_folder_is_served(copy, spare):
    with serving(copy / "words", watch=False) as client:
        spare.rename(copy / "words" / "3")
        context_of(client.app).repository.load()
        assert client.get("/v1/models/words").json()["version"] == "3"


def test_files_and_hidden_folders_of_a_repository_are_passed_over(repository):
    (repository / ".cache" / "1").mkdir(parents=True)
    (repository / "a file").write_text("text")
    assert {one.name for one in scan(repository)} == {"plain", "words"}

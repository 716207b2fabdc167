"""The file of a rollout, or the routes for operators, decide which version answers."""

import json
import time

import pytest

from hsoftmax.service.context import context_of
from tests.service.conftest import HIDDEN, expect_error, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/probabilities"
ROLLOUT, ROLLBACK = "/v1/models/words/rollout", "/v1/models/words/rollback"
ADMIN = {"authorization": "Bearer root"}
SPLIT = {"aliases": {"stable": 1, "canary": 2}, "split": {"stable": 50, "canary": 50}}


def write(repository, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (repository / "words" / "rollout.json").write_text(text)


def ask(client, key: str = "", **query) -> str:
    """Ask, and return the version of the answer, which its header has too."""
    headers = {"x-hsoftmax-sticky-key": key} if key else {}
    answer = client.post(URL, json=QUERY | query, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-hsoftmax-version"] == answer.json()["version"]
    return answer.json()["version"]


def eventually(holds, seconds: float = 5) -> None:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + seconds
        time.sleep(0.02)


def test_a_file_is_followed_and_a_bad_one_leaves_the_old(copy):
    write(copy, {"pin": "stable", "aliases": {"stable": 1}})
    with serving(copy) as client:
        assert (ask(client), ask(client, version="stable"), ask(client, version=2)) == (
            "1",
        ) * 2 + ("2",)
        assert client.get("/v1/models/words").json()["aliases"] == {"stable": "1"}
        write(copy, {"split": {"1": 60, "2": 60}})
        eventually(lambda: client.get(ROLLOUT).json()["refused"] is not None)
        shown = client.get(ROLLOUT).json()
        assert shown["refused"] == (
            "rollout.json: split: expected percentages that sum up to 100, got 120"
        )
        assert (shown["pin"], shown["source"]) == ("stable", "repository")
        assert client.get("/healthz/ready").json()["refused"] == {
            "words/rollout.json": shown["refused"]
        }
        assert ask(client, version="stable") == ask(client) == "1"
        write(copy, {"pin": 2})
        eventually(lambda: ask(client) == "2")
        (copy / "words" / "rollout.json").unlink()
        eventually(lambda: client.get(ROLLOUT).json()["source"] == "none")
        unknown = client.post(URL, json=QUERY | {"version": "stable"})
        expect_error(
            unknown, 404, "unknown_version", "words: expected version 1 or 2, got 'stable'"
        )


def test_a_bad_file_at_the_start_serves_no_version_that_it_may_exclude(copy):
    write(copy, "{")
    with serving(copy) as client:
        expect_error(client.post(URL, json=QUERY), 404, "unknown_bundle", "was refused")
        ready = client.get("/v2/models/words/ready")
        expect_error(
            ready, 503, "not_ready", "words was refused: rollout.json: body: expected JSON"
        )
        index = client.post("/v2/repository/index").json()
        assert [one["state"] for one in index if one["name"] == "words"] == ["UNAVAILABLE"]
        assert client.get("/v1/models/plain").status_code == 200
        write(copy, {"pin": 1})
        eventually(lambda: client.post(URL, json=QUERY).status_code == 200)
        assert ask(client) == "1"


def test_a_file_may_come_before_its_version_and_a_version_may_go(copy, spare):
    write(copy, {"aliases": {"canary": 3}, "split": {"2": 50, "canary": 50}})
    with serving(copy, watch=False) as client:
        repository = context_of(client.app).repository
        assert {ask(client, f"client {i}") for i in range(20)} == {"2"}
        spare.rename(copy / "words" / "3")
        repository.load()
        assert repository.refused_rollouts == {}
        assert {ask(client, f"client {i}") for i in range(20)} == {"2", "3"}
        (copy / "words" / "2").rename(copy / "gone")
        repository.load()
        assert {ask(client, f"client {i}") for i in range(20)} == {"3"}
        assert "split.2: expected version 1 or 3" in repository.refused_rollouts["words"]


def test_a_split_is_sticky_over_every_protocol_and_counts_by_version(copy, tmp_path):
    pytest.importorskip("grpc")
    write(copy, SPLIT)
    tensor = {"name": "hidden", "shape": [1, HIDDEN], "datatype": "FP32", "data": [0.5] * HIDDEN}
    with serving(copy) as client:
        by_key = {f"client {i}": ask(client, f"client {i}") for i in range(40)}
        assert set(by_key.values()) == {"1", "2"}
        for key, version in by_key.items():
            headers = {"x-hsoftmax-sticky-key": key}
            tensors = client.post(
                "/v2/models/words/infer", json={"inputs": [tensor]}, headers=headers
            )
            assert tensors.json()["model_version"] == version
            assert tensors.headers["x-hsoftmax-version"] == version
            line = json.dumps({"input": [0.5] * HIDDEN, "target": 1}) + "\n"
            stream = client.post("/v1/models/words/score", content=line, headers=headers)
            assert stream.headers["x-hsoftmax-version"] == version
            predict = {"instances": [[0.5] * HIDDEN]}
            predicted = client.post("/v1/models/words:predict", json=predict, headers=headers)
            assert predicted.json()["version"] == version
        api_key = {"authorization": "Bearer somebody"}
        versions = [client.post(URL, json=QUERY, headers=api_key).json()["version"]] * 5
        assert len(set(versions)) == 1
        assert {ask(client) for _ in range(40)} == {"1", "2"}  # without a key, by request
        metadata = client.get("/v2/models/words/versions/canary").json()
        assert metadata["properties"]["version"] == "2"
        page = client.get("/metrics").text
        route = 'route="/v1/models/{name}/probabilities",status="200"'
        for version in ("1", "2"):
            counted = (
                f'hsoftmax_requests_total{{code="ok",model="words",{route},version="{version}"}}'
            )
            assert counted in page


def test_operators_set_roll_out_and_roll_back(copy, tmp_path):
    settings = {"state": tmp_path / "state", "admin_key": "root"}
    with serving(copy, **settings) as client:
        expect_error(client.put(ROLLOUT, json=SPLIT), 401, "unauthorized")
        assert client.put(ROLLOUT, json=SPLIT, headers=ADMIN).json()["source"] == "state"
        assert {ask(client, f"client {i}") for i in range(20)} == {"1", "2"}
        for bad, status, code in (
            ("{", 400, "invalid_json"),
            ('{"split": {"stable": 99}}', 422, "invalid_rollout"),
            ('{"pin": "stable"}', 422, "invalid_rollout"),
            ('{"pin": 9}', 422, "invalid_rollout"),
            ('{"pin": []}', 422, "invalid_query"),
        ):
            expect_error(client.put(ROLLOUT, content=bad, headers=ADMIN), status, code)
        assert client.get(ROLLOUT).json()["split"] == {"stable": 50.0, "canary": 50.0}
        rolled_back = client.post(ROLLBACK, headers=ADMIN).json()
        assert (rolled_back["pin"], rolled_back["split"]) == ("stable", {})
        assert {ask(client, f"client {i}") for i in range(20)} == {"1"}
        assert ask(client, version="canary") == "2"
    with serving(copy, **settings) as client:  # as it was before the restart
        assert ask(client) == "1"
        assert client.put(ROLLOUT, content="{}", headers=ADMIN).json()["source"] == "none"
        assert ask(client) == "2"
        unnamed = client.post(ROLLBACK, headers=ADMIN)
        expect_error(unnamed, 422, "invalid_rollout", "words has no alias stable")
        assert client.post(ROLLBACK, json={"version": 1}, headers=ADMIN).json()["pin"] == "1"


def test_services_with_one_state_folder_follow_each_other(copy, tmp_path):
    settings = {"state": tmp_path / "state", "admin_key": "root"}
    with serving(copy, **settings) as client, serving(copy, **settings) as other:
        client.put(ROLLOUT, json={"pin": 1}, headers=ADMIN)
        eventually(lambda: ask(other) == "1")
        other.put(ROLLOUT, json={"pin": 2}, headers=ADMIN)
        eventually(lambda: ask(client) == "2")


def test_the_file_of_the_repository_decides_before_an_operator(copy, tmp_path):
    settings = {"state": tmp_path / "state", "admin_key": "root"}
    with serving(copy, **settings) as client:
        client.put(ROLLOUT, json={"pin": 1}, headers=ADMIN)
        write(copy, {"pin": 2, "aliases": {"stable": 1}})
        eventually(lambda: ask(client) == "2")
        for answer in (
            client.put(ROLLOUT, json={"pin": 1}, headers=ADMIN),
            client.post(ROLLBACK, headers=ADMIN),
        ):
            expect_error(answer, 409, "rollout_in_repository", "got words/rollout.json")
        (copy / "words" / "rollout.json").unlink()
        eventually(lambda: ask(client) == "1")


def test_a_rollout_that_cannot_be_stored_is_not_followed(copy, tmp_path):
    (tmp_path / "state").write_text("no folder")
    with serving(copy, state=tmp_path / "state", admin_key="root") as client:
        answer = client.put(ROLLOUT, json={"pin": 1}, headers=ADMIN)
        expect_error(answer, 503, "not_ready", "expected a state folder that can be written")
        assert ask(client) == "2"


def test_a_reload_names_a_bad_rollout(copy, tmp_path):
    write(copy, {"pin": 1})
    with serving(copy, watch=False, admin_key="root") as client:
        write(copy, {"pin": 9})
        assert ask(client) == "1"
        answer = client.post("/v1/models/words/reload", headers=ADMIN)
        expect_error(answer, 409, "bundle_refused", "pin: expected version 1 or 2, got 9")
        assert ask(client) == "1"

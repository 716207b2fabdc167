"""Weights that are changed in place under a running service cost no wrong answer and no process."""

import json
import os
import time
from pathlib import Path

import pytest

from hsoftmax.runtime.sessions import Session
from hsoftmax.service.context import context_of
from tests.service.conftest import HIDDEN, expect_error, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/probabilities"


def truncate(weights: Path) -> None:
    os.truncate(weights, 0)


def overwrite(weights: Path) -> None:
    """Write other weights of the same size, as `cp` does."""
    with weights.open("r+b") as file:
        file.write(bytes(weights.stat().st_size))


CHANGES = pytest.mark.parametrize("change", [truncate, overwrite])


def weights_of(copy: Path, version: int = 2) -> Path:
    return copy / "words" / str(version) / "weights.bin"


@CHANGES
@pytest.mark.parametrize("inline", [True, False])
def test_no_answer_comes_from_changed_weights(copy, change, inline):
    with serving(copy, watch=False) as client:
        context = context_of(client.app)
        if not inline:
            context.engine._inline_max_cost = 0
        before = client.post(URL, json=QUERY).json()
        content = weights_of(copy).read_bytes()
        change(weights_of(copy))
        answer = client.post(URL, json=QUERY)
        expect_error(answer, 503, "bundle_changed", "weights: expected them as they were loaded")
        assert answer.headers["retry-after"] == "1"
        assert client.post(URL, json=QUERY | {"version": 1}).status_code == 200
        context.repository.load()
        assert client.post(URL, json=QUERY).json()["version"] == "1"
        assert client.get("/v1/models/words").json()["refused"].keys() == {"2"}
        weights_of(copy).write_bytes(content)
        context.repository.load()
        assert client.post(URL, json=QUERY).json() == before


def test_weights_that_change_during_a_run_give_no_answer(copy, monkeypatch):
    run = Session._run

    def run_and_change(session, feeds, options):
        outputs = run(session, feeds, options)
        if session.weights is not None:
            overwrite(weights_of(copy))
        return outputs

    with serving(copy, watch=False) as client:
        monkeypatch.setattr(Session, "_run", run_and_change)
        expect_error(client.post(URL, json=QUERY), 503, "bundle_changed")


def test_a_changed_bundle_is_dropped_soon_and_the_log_says_why(copy, capfd):
    with serving(copy) as client:
        truncate(weights_of(copy, 1))
        truncate(weights_of(copy))
        until = time.monotonic() + 10
        while (answer := client.post(URL, json=QUERY)).status_code == 503:
            assert time.monotonic() < until
            time.sleep(0.05)
        expect_error(answer, 404, "unknown_bundle", "'words' was refused")
        assert client.post(URL.replace("words", "plain"), json=QUERY).status_code == 200
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    reasons = [one["reason"] for one in told if one["event"] == "bundle_refused"]
    assert all("weights.bin: expected" in reason for reason in reasons)
    dropped = {one["version"] for one in told if one["event"] == "bundle_dropped"}
    assert dropped == {"1", "2"}


def test_weights_that_were_replaced_by_a_rename_are_not_affected(copy, spare):
    with serving(copy, watch=False) as client:
        before = client.post(URL, json=QUERY).json()
        (spare / "weights.bin").rename(weights_of(copy))
        assert client.post(URL, json=QUERY).json() == before
        context_of(client.app).repository.load()
        assert client.post(URL, json=QUERY).json() == before
        assert client.get("/v1/models/words").json()["refused"].keys() == {"2"}


def test_a_stream_ends_with_the_reason(copy):
    with serving(copy, watch=False) as client:
        truncate(weights_of(copy))
        row = json.dumps({"id": 1, "input": [0.5] * HIDDEN, "target": 1})
        answer = client.post("/v1/models/words/score", content=row + "\n")
        expect_error(answer, 503, "bundle_changed")


def test_a_freed_bundle_closes_its_file(copy):
    with serving(copy, watch=False) as client:
        repository = context_of(client.app).repository

        def opened() -> int:
            links = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                     if os.path.islink(f"/proc/self/fd/{n}")]  # fmt: skip
            return sum(link == str(weights_of(copy)) for link in links)

        assert opened() >= 1
        repository.unload("words")
        assert opened() == 0

"""A canary under load in several workers: no request fails, clients stay, one call rolls back."""

import json
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterable

import pytest

from tests.service.conftest import HIDDEN
from tests.service.processes import Process

from .test_supervisor import ADMIN, eventually, workers_of

URL = "/v1/models/words/probabilities"
ROLLOUT, ROLLBACK = "/v1/models/words/rollout", "/v1/models/words/rollback"
QUERY = json.dumps({"inputs": [[0.5] * HIDDEN], "targets": [1]})
CANARY = {"aliases": {"stable": 1, "canary": 2}, "split": {"stable": 90, "canary": 10}}
CLIENTS = 8

Answers = dict[str, set[str]]  # the versions that answered each key


def load(server: Process, keys: list[str], times: int) -> Answers:
    """Ask for each key so many times from several connections; every answer must be a 200."""
    answers: Answers = defaultdict(set)
    failures: list[BaseException] = []

    def run(part: Iterable[str]) -> None:
        connection = server.connect()
        try:
            for key in part:
                headers = {"x-hsoftmax-sticky-key": key}
                connection.request("POST", URL, QUERY, headers)
                response = connection.getresponse()
                body = json.loads(response.read())
                assert response.status == 200, body
                answers[key].add(body["version"])
        except BaseException as error:
            failures.append(error)

    work = keys * times
    # A key's requests are spread over the connections, and so over the workers.
    threads = [threading.Thread(target=run, args=(work[i::CLIENTS],)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    return answers


def pair_of(start, copy, **settings) -> Process:
    server = start(copy, workers=2, admin_key="root", **settings)
    server.until("loaded")  # the second
    return server


def set_rollout(server: Process, rollout: dict) -> None:
    status, body = server.call("PUT", ROLLOUT, json.dumps(rollout), ADMIN)
    assert status == 200, body


@pytest.mark.parametrize(
    ("keys", "times", "points"),
    [(301, 2, 4), pytest.param(2501, 5, 2, marks=pytest.mark.slow)],
)
def test_a_canary_gets_its_part_and_one_call_rolls_it_back(
    start, copy, tmp_path, keys, times, points
):
    """The numbers of keys are odd, so that a key's requests come from several connections."""
    server = pair_of(start, copy, state=tmp_path / "state")
    set_rollout(server, {"pin": 1})
    names = [f"client {i}" for i in range(keys)]
    changing = threading.Thread(target=set_rollout, args=(server, CANARY))
    changing.start()
    during = load(server, names, 1)
    changing.join()
    assert set().union(*during.values()) <= {"1", "2"}
    answers = load(server, names, times)
    assert {len(versions) for versions in answers.values()} == {1}
    part = 100 * sum(versions == {"2"} for versions in answers.values()) / keys
    assert 10 - points <= part <= 10 + points
    assert server.call("POST", ROLLBACK, headers=ADMIN)[0] == 200
    assert set().union(*load(server, names, 1).values()) == {"1"}


def test_a_replaced_worker_follows_the_rollout_even_if_its_file_is_bad_now(start, copy):
    path = copy / "words" / "rollout.json"
    path.write_text('{"pin": 1}')
    server = pair_of(start, copy)
    path.write_text('{"pin": "canary"}')
    server.until("rollout_refused")
    server.until("rollout_refused")
    os.kill(workers_of(server)[0], signal.SIGKILL)
    server.until("loaded")
    eventually(lambda: len(workers_of(server)) == 2)
    assert set().union(*load(server, [f"client {i}" for i in range(20)], 1).values()) == {"1"}
    path.write_text('{"pin": 2}')
    versions: set[str] = set()

    def all_follow() -> bool:
        nonlocal versions
        versions = set().union(*load(server, [f"client {i}" for i in range(20)], 1).values())
        return versions == {"2"}

    eventually(all_follow, 5)


@pytest.mark.slow
def test_workers_follow_an_operators_rollout_without_watching(start, copy, tmp_path):
    server = pair_of(start, copy, watch=False, state=tmp_path / "state")
    set_rollout(server, {"pin": 1})
    names = [f"client {i}" for i in range(20)]
    assert set().union(*load(server, names, 1).values()) == {"1"}
    os.kill(workers_of(server)[1], signal.SIGKILL)
    server.until("worker_ended")
    server.until("loaded")
    assert set().union(*load(server, names, 1).values()) == {"1"}

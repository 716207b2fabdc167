"""Rate limits of two worker processes together, as clients on many connections see them."""

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from tests.service.conftest import HIDDEN
from tests.service.processes import Process

from .test_supervisor import URL

pytestmark = pytest.mark.slow

SERVICE, SEARCH, PATIENT, ROWS = 50, 10, 2, 30  # requests a second; the last one is rows
KEYS = f"""
{{"name": "open", "key": "o"}}
{{"name": "search", "key": "s", "requests_per_second": {SEARCH}}}
{{"name": "patient", "key": "p", "requests_per_second": {PATIENT}}}
{{"name": "bulk", "key": "b", "rows_per_second": {ROWS}}}
"""
CONNECTIONS, SECONDS, PATIENT_REQUESTS = 8, 4.0, 7
REQUESTS_PER_CONNECTION = 25  # new connections spread over the workers


@dataclass(frozen=True)
class Answer:
    """An answer, and the times between which the service counted its request."""

    sent: float
    received: float
    status: int
    code: str
    headers: Mapping[str, str]


@pytest.fixture
def server(start, repository, tmp_path) -> Process:
    path = tmp_path / "keys"
    path.write_text(KEYS)
    server = start(repository, workers=2, api_keys_file=path, max_requests_per_second=SERVICE)
    server.until("loaded")  # the second
    return server


def send(connection: http.client.HTTPConnection, key: str, rows: int) -> Answer:
    body = json.dumps({"inputs": [[0.5] * HIDDEN] * rows, "targets": [1] * rows})
    sent = time.monotonic()
    connection.request("POST", URL, body, {"authorization": f"Bearer {key}"})
    response = connection.getresponse()
    content = json.loads(response.read())
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(sent, time.monotonic(), response.status, content.get("code", "ok"), headers)


def send_for_seconds(server: Process, key: str, rows: int = 1) -> list[Answer]:
    """Send from several connections, each as fast as it can, and return all answers."""
    answers: list[Answer] = []
    end = time.monotonic() + SECONDS

    def run() -> None:
        while time.monotonic() < end:
            connection = http.client.HTTPConnection(server.address, timeout=30)
            for _ in range(REQUESTS_PER_CONNECTION):
                answers.append(send(connection, key, rows))
            connection.close()

    in_parallel(*[run] * CONNECTIONS)
    return answers


def in_parallel(*functions: Callable[[], None]) -> None:
    """Run the functions in threads; raise the first error of one of them."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def expect_limited(answers: list[Answer], policy: str) -> list[Answer]:
    """Assert that each answer is a 200, or a 429 of a limit; return those with 200."""
    for one in answers:
        assert (one.status, one.code) in {(200, "ok"), (429, "rate_limited")}
        assert policy in one.headers["ratelimit-policy"].split(", ")
        remaining = re.findall(r";r=(\d+);t=\d+", one.headers["ratelimit"])
        if one.status == 429:
            assert "0" in remaining
            assert re.fullmatch("[1-9][0-9]*", one.headers["retry-after"])
        else:
            assert "retry-after" not in one.headers
    accepted = [one for one in answers if one.status == 200]
    print(f"{policy}: {len(accepted)} of {len(answers)} requests were accepted")
    assert len(accepted) < len(answers)
    return accepted


def expect_within(accepted: list[Answer], rate: float, rows: int = 1, above: float = 0) -> None:
    """Assert for every interval that it has at most one second's tokens and those that came.

    Args:
        accepted: the answers with 200
        rate: requests or rows a second
        rows: what each request counts
        above: rows that queries under way at the same time may have beyond the limit
    """
    for first in accepted:
        ends = sorted(one.received for one in accepted if one.sent >= first.sent)
        for number, end in enumerate(ends, 1):
            assert number * rows <= rate + rate * (end - first.sent) + above + 1e-3
    # A limit refuses nothing that it allows. Clients on a busy machine are slow: half is enough.
    assert len(accepted) * rows >= rate * SECONDS / 2


def test_all_workers_together_accept_what_the_limit_of_the_service_allows(server):
    answers = send_for_seconds(server, "o")
    accepted = expect_limited(answers, f'"requests";q={SERVICE};w=1')
    expect_within(accepted, SERVICE)
    lines = [json.loads(line) for line in server.read_log().splitlines()]
    served_by = {one["worker"] for one in lines if one["event"] == "request"}
    assert len(served_by) == 2


def test_a_query_may_exceed_the_rows_that_remain_and_later_ones_wait(server):
    rows = 5
    answers = send_for_seconds(server, "b", rows)
    accepted = expect_limited(answers, f'"key-rows";q={ROWS};w=1;qu="rows"')
    expect_within(accepted, ROWS, rows, above=CONNECTIONS * rows)


def test_a_client_that_waits_as_it_was_told_is_served_while_another_does_not(server):
    impatient: list[Answer] = []
    patient: list[Answer] = []

    def send_and_wait() -> None:
        connection = server.connect()
        for _ in range(PATIENT_REQUESTS):
            patient.append(send(connection, "p", 1))
            if patient[-1].status == 429:
                time.sleep(int(patient[-1].headers["retry-after"]))
                patient.append(send(connection, "p", 1))
                assert patient[-1].status == 200

    in_parallel(lambda: impatient.extend(send_for_seconds(server, "s")), send_and_wait)
    accepted = expect_limited(impatient, f'"key-requests";q={SEARCH};w=1')
    expect_within(accepted, SEARCH)
    served = expect_limited(patient, f'"key-requests";q={PATIENT};w=1')
    assert len(served) == PATIENT_REQUESTS

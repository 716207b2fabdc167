"""Files of requests: each line has the response that its route gives, in OpenAI's format."""

import json

import pytest

from hsoftmax.service.jobs.execution import execute_job
from tests.service.conftest import TARGETS, expect_error

from .conftest import SCORE, JobsClient, eventually, make_rows, ndjson, serving_jobs

PROBABILITIES, TOP_K = "/v1/models/words/probabilities", "/v1/models/words/top_k"
ROWS = [row["input"] for row in make_rows(6)]
QUERIES = {
    PROBABILITIES: [
        {"inputs": ROWS[:1], "targets": [3]},
        {"inputs": ROWS[1:3], "targets": [[1, 2], []]},
        {"inputs": ROWS[3:], "log": True},
        {"inputs": ROWS[:2], "targets": ["word1", "étoile"], "clusters": True, "version": "2"},
    ],
    TOP_K: [
        {"inputs": ROWS[:1]} | {"k": 3},
        {"inputs": ROWS[:3], "k": TARGETS, "log": True},
        {"inputs": ROWS[4:], "k": 2, "max_blocks": 1},
    ],
}


def request_line(id: str, url: str, body: object, **fields: object) -> dict:
    return {"custom_id": id, "method": "POST", "url": url, "body": body, **fields}


def answer(jobs: JobsClient, url: str, lines: list[dict], **query) -> tuple[dict, list, list]:
    """Return the batch, the lines of its output and those of its error file."""
    batch = jobs.until(jobs.start(lines, "requests.jsonl", endpoint=url, **query)["id"])
    assert batch["status"] == "completed", batch
    return batch, jobs.records(batch), jobs.errors(batch)


@pytest.mark.parametrize("url", QUERIES)
def test_a_query_has_the_body_that_its_route_answers(jobs, url):
    lines = [request_line(f"q{i}", url, body) for i, body in enumerate(QUERIES[url])]
    batch, output, errors = answer(jobs, url, lines)
    assert (errors, batch["error_file_id"]) == ([], None)
    assert [one["custom_id"] for one in output] == [line["custom_id"] for line in lines]
    for i, (one, body) in enumerate(zip(output, QUERIES[url], strict=True)):
        suffix = f"{batch['id'].removeprefix('batch_')}-{i}"
        assert one["id"] == f"batch_req_{suffix}"
        assert one["error"] is None
        response = jobs.http.post(url, json=body)
        assert one["response"] == {
            "status_code": 200,
            "request_id": f"batch_{suffix}",
            "body": response.json(),
        }


def test_a_row_has_the_fields_of_its_record(jobs):
    rows = make_rows(12)
    lines = [request_line(row.pop("custom_id"), SCORE, row) for row in rows]
    _, output, errors = answer(jobs, SCORE, lines)
    assert errors == []
    plain = jobs.records(jobs.run(rows))
    for i, (one, record) in enumerate(zip(output, plain, strict=True)):
        assert one["custom_id"] == f"r{i}"
        body = {"model": "words", "version": "2", "log_prob": record["log_prob"]}
        assert (one["response"]["status_code"], one["response"]["body"]) == (200, body)


def test_a_row_may_become_a_plain_record_of_another_format(jobs):
    rows = make_rows(3)
    lines = [request_line(row.pop("custom_id"), SCORE, row) for row in rows]
    file = jobs.upload(ndjson(lines))["id"]
    batch = jobs.until(jobs.create(input_file_id=file, output_format="csv")["id"])
    assert jobs.content(batch["output_file_id"]).startswith(b"custom_id,log_prob")


WRONG = [
    ({"inputs": [[0.5]], "targets": [1]}, 422, "invalid_query", "inputs"),
    ({"inputs": ROWS[:1], "targets": [99]}, 422, "target_out_of_range", "targets"),
    ({"inputs": ROWS[:1], "targets": ["none"]}, 422, "unknown_label", None),
    ({"inputs": ROWS[:1], "version": "1"}, 404, "unknown_version", None),
    ({"inputs": ROWS[:1], "target": [1]}, 422, "invalid_query", "target"),
    ({"input": ROWS[0], "target": 1}, 422, "invalid_query", "input"),
    (3, 422, "invalid_query", None),
    (None, 422, "invalid_query", None),
]


def test_a_wrong_query_has_the_error_of_its_route(jobs):
    bodies = [QUERIES[PROBABILITIES][0], *(body for body, *_ in WRONG)]
    lines = [request_line(f"q{i}", PROBABILITIES, body) for i, body in enumerate(bodies)]
    batch, output, errors = answer(jobs, PROBABILITIES, lines)
    assert batch["request_counts"] == {"total": 9, "completed": 1, "failed": 8}
    assert [one["custom_id"] for one in output] == ["q0"]
    for i, (one, (body, status, code, param)) in enumerate(zip(errors, WRONG, strict=True), 1):
        assert (one["custom_id"], one["line"], one["error"]) == (f"q{i}", i + 1, None)
        error = one["response"]["body"]["error"]
        assert (one["response"]["status_code"], error["code"]) == (status, code), one
        route = jobs.http.post(PROBABILITIES, content=json.dumps(body)).json()
        if code != "unknown_version":  # another version is served, but not by this job
            assert (error["message"], code) == (route["error"], route["code"])
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param


@pytest.mark.parametrize("kind", ["query", "row"])
def test_lines_that_are_no_request_to_the_endpoint(jobs, kind):
    url, body = {
        "query": (PROBABILITIES, QUERIES[PROBABILITIES][0]),
        "row": (SCORE, {"input": ROWS[0], "target": 1}),
    }[kind]
    good = request_line("good", url, body)
    lines = [
        json.dumps(good).encode(),
        json.dumps(good).encode(),
        b"{",
        b"",
        b"\xff",
        json.dumps(good | {"custom_id": "get", "method": "GET"}).encode(),
        json.dumps(good | {"custom_id": "other", "url": "/v1/models/plain/score"}).encode(),
        json.dumps({"custom_id": "none"}).encode(),
        json.dumps({"custom_id": "last", "body": body}).encode(),
    ]
    file = jobs.upload(b"\n".join(lines), "upload")["id"]
    batch = jobs.until(jobs.create(input_file_id=file, endpoint=url)["id"])
    assert batch["request_counts"] == {"total": 9, "completed": 2, "failed": 7}, batch
    assert [one["custom_id"] for one in jobs.records(batch)] == ["good", "last"]
    errors = jobs.errors(batch)
    codes = [(one["custom_id"], (one["error"] or one["response"]["body"]["error"])["code"])
             for one in errors]  # fmt: skip
    assert codes == [
        ("good", "duplicate_id"),
        (None, "invalid_json"),
        (None, "invalid_json"),
        (None, "invalid_json"),
        ("get", "invalid_query"),
        ("other", "invalid_query"),
        ("none", "invalid_query"),
    ]
    assert [one["response"] for one in errors[:3]] == [None] * 3


def test_the_alias_of_a_route_is_the_same_route(jobs):
    line = request_line("a", TOP_K.replace("top_k", "topk"), {"inputs": ROWS[:1], "k": 1})
    _, output, errors = answer(jobs, TOP_K, [line])
    assert (len(output), errors) == (1, [])


def test_queries_need_the_route_that_they_are_for(jobs):
    file = jobs.upload(ndjson([request_line("a", SCORE, {"inputs": ROWS[:1]})]))["id"]
    query = {"input_file_id": file, "endpoint": SCORE}
    response = jobs.http.post("/v1/batches", json=query)
    expect_error(response, 422, "invalid_query", "expected bodies with `input`")
    query = {"input_file_id": file, "endpoint": TOP_K, "output_format": "csv"}
    response = jobs.http.post("/v1/batches", json=query)
    expect_error(response, 422, "invalid_query", "output_format: expected ndjson")


def test_an_answer_beyond_the_limit_of_a_line_is_refused(jobs, monkeypatch):
    monkeypatch.setattr("hsoftmax.service.jobs.request_lines._MAX_VALUES", 2 * TARGETS)
    lines = [request_line(f"q{n}", PROBABILITIES, {"inputs": ROWS[:n]}) for n in (2, 3)]
    _, output, errors = answer(jobs, PROBABILITIES, lines)
    assert [one["custom_id"] for one in output] == ["q2"]
    assert errors[0]["response"]["status_code"] == 413


def test_a_job_taken_up_again_keeps_its_requests_ids(repository, tmp_path, monkeypatch):
    """Ids of requests are no random numbers, as a shard may be made twice."""
    lines = [request_line(f"q{i}", TOP_K, {"inputs": ROWS[:2], "k": 3}) for i in range(60)]
    starts = []

    def twice(job, context):
        starts.append(job.id)
        execute_job(job, context)

    monkeypatch.setattr("hsoftmax.service.jobs.job_thread.execute_job", twice)
    with serving_jobs(repository, tmp_path) as jobs:
        batch = jobs.start(lines, endpoint=TOP_K)
        eventually(lambda: starts)
    with serving_jobs(repository, tmp_path) as jobs:
        done = jobs.until(batch["id"])
        assert done["request_counts"]["completed"] == 60
        output = jobs.records(done)
    assert len({one["id"] for one in output}) == 60
    assert [one["response"]["request_id"] for one in output] == [
        f"{batch['id']}-{i}" for i in range(60)
    ]


def test_outputs_expire_when_the_client_says(jobs):
    expiry = {"anchor": "created_at", "seconds": 7200}
    batch = jobs.run(make_rows(2), output_expires_after=expiry)
    file = jobs.http.get(f"/v1/files/{batch['output_file_id']}").json()
    assert file["expires_at"] == file["created_at"] + 7200


@pytest.mark.parametrize(
    ("expiry", "param"),
    [
        ({"anchor": "now", "seconds": 7200}, "output_expires_after.anchor"),
        ({"anchor": "created_at", "seconds": 60}, "output_expires_after.seconds"),
        ({"anchor": "created_at"}, None),
        (3600, "output_expires_after"),
    ],
)
def test_a_time_that_no_output_can_expire_is_refused(jobs, expiry, param):
    file = jobs.upload(ndjson(make_rows(1)))["id"]
    query = {"input_file_id": file, "endpoint": SCORE, "output_expires_after": expiry}
    response = jobs.http.post("/v1/batches", json=query)
    expect_error(response, 422, "invalid_query")
    if param is not None:
        assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("url", [PROBABILITIES, TOP_K])
def test_logits_that_overflow_are_the_error_of_their_line(jobs, url):
    bodies = [{"inputs": ROWS[:1]}, {"inputs": [ROWS[0], [3e38] * len(ROWS[0])]}]
    lines = [request_line(f"q{i}", url, body) for i, body in enumerate(bodies)]
    _, output, (error,) = answer(jobs, url, lines)
    assert [one["custom_id"] for one in output] == ["q0"]
    assert error["custom_id"] == "q1"
    response = error["response"]
    assert (response["status_code"], response["body"]["error"]["code"]) == (422, "logits_overflow")
    assert response["body"]["error"]["message"].startswith("inputs row 1: expected numbers whose")


def test_a_file_in_which_every_line_failed_says_the_commonest_reason(jobs):
    bodies = [{"inputs": [[1.0]]}, {"inputs": []}, {"k": 3}, {"inputs": ROWS[:1], "k": 99}]
    lines = [request_line(f"q{i}", TOP_K, body) for i, body in enumerate(bodies)]
    batch, output, errors = answer(jobs, TOP_K, lines)
    assert (output, len(errors)) == ([], 4)
    (error,) = batch["errors"]["data"]
    assert error["code"] == "all_rows_failed"
    assert "4 that failed; 4 of them invalid_query: inputs row 0: expected" in error["message"]

"""Jobs over texts: a plain text file, rows, and requests with texts as their inputs."""

import json
import os

import pytest

from hsoftmax.exporter import export_file
from hsoftmax.featurizers import FEATURES
from tests.exporter.sources.test_fasttext import SENTENCES, real_model
from tests.service.conftest import serving

from .conftest import JobsClient

TOP_K = "/v1/models/lid/top_k"


@pytest.fixture(scope="module")
def text_jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    export_file(real_model(), folder / "repository" / "lid", source="fasttext")
    state = folder / "state"
    with serving(folder / "repository", state=state) as client:
        yield JobsClient(client, state)


def run(jobs, content, name):
    file = jobs.upload(content, name)
    return jobs.until(jobs.create(input_file_id=file["id"], endpoint=TOP_K, k=1)["id"])


def test_a_text_file_becomes_lines_of_records(text_jobs):
    batch = run(text_jobs, "".join(f"{text}\n" for text in SENTENCES.values()), "texts.txt")
    assert batch["status"] == "completed", batch
    labels = [record["labels"][0] for record in text_jobs.records(batch)]
    assert labels == list(SENTENCES)
    assert "été" in text_jobs.content(text_jobs.upload("un été\n", "some.txt")["id"]).decode()


@pytest.mark.parametrize("name", ["input", "text"])
def test_rows_and_requests_may_have_texts(text_jobs, name):
    rows = [json.dumps({"custom_id": k, name: text}) for k, text in SENTENCES.items()]
    batch = run(text_jobs, "\n".join(rows), "rows.ndjson")
    assert [record["labels"][0] for record in text_jobs.records(batch)] == list(SENTENCES)
    requests = [
        {"custom_id": k, "method": "POST", "url": TOP_K, "body": {"inputs": [text], "k": 1}}
        for k, text in SENTENCES.items()
    ]
    requests.append({**requests[0], "custom_id": "bad", "body": {"inputs": ["a\nb"]}})
    batch = run(text_jobs, "\n".join(map(json.dumps, requests)), "requests.jsonl")
    answers = [record["response"]["body"] for record in text_jobs.records(batch)]
    assert [answer["results"][0]["labels"][0] for answer in answers] == list(SENTENCES)
    (error,) = text_jobs.records(batch, "error_file_id")
    assert error["response"]["status_code"] == 422
    assert "inputs row 0: expected one line" in error["response"]["body"]["error"]["message"]


@pytest.mark.parametrize("requests", [False, True])
def test_a_job_ends_when_the_features_are_changed_in_place(tmp_path, requests):
    """It could only go on with other numbers, or end the process at a page that is gone."""
    export_file(real_model(), tmp_path / "repository" / "lid", source="fasttext")
    row = {"custom_id": "a", "input": "hello"}
    if requests:
        body = {"inputs": ["hello"], "k": 1}
        row = {"custom_id": "a", "method": "POST", "url": TOP_K, "body": body}
    with serving(tmp_path / "repository", state=tmp_path / "state", watch=False) as client:
        jobs = JobsClient(client, tmp_path / "state")
        assert run(jobs, json.dumps(row), "rows.jsonl")["status"] == "completed"
        os.utime(tmp_path / "repository" / "lid" / "1" / FEATURES, ns=(1, 1))
        batch = run(jobs, json.dumps(row), "rows.jsonl")
    assert batch["status"] == "failed"
    (error,) = batch["errors"]["data"]
    assert error["code"] == "bundle_gone"
    assert "expected them as they were loaded, got a change in place" in error["message"]

"""Queries of inputs by name, and of texts, at bundles that have an encoder."""

import json
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import exporter, models
from hsoftmax.exporter import EncoderOptions
from tests import encoder_models
from tests.encoder_models import gru_states, mean_of
from tests.service.conftest import HIDDEN, TARGETS, random_model, serving
from tests.service.jobs.conftest import serving_jobs

ROWS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8, 9, 7], [49, 0]]
MODEL = random_model(11)
TOLERANCE = 1e-5


def export(folder: Path, name: str, proto, **options) -> None:
    """A head with an encoder in the repository."""
    path = encoder_models.save(proto, folder / f"{name}.onnx")
    to = exporter.parse_destination(folder / "repository" / name)
    exporter.export_model(MODEL, to, encoder=EncoderOptions(path, **options))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Client of four bundles with encoders, and of one without."""
    assert encoder_models.HIDDEN == HIDDEN
    folder = tmp_path_factory.mktemp("encoders")
    export(folder, "mean", encoder_models.mean(), mask="mask")
    export(folder, "gru", encoder_models.gru())
    export(folder, "each", encoder_models.gru(outputs=["states"]), position="each")
    export(folder, "places", encoder_models.with_places(30))
    exporter.export_model(MODEL, exporter.parse_destination(folder / "repository" / "bare"))
    with serving(folder / "repository", max_rows=20, max_tokens=100) as client:
        yield client


def ask(client, operation: str, name: str, **query) -> dict:
    response = client.post(f"/v1/models/{name}/{operation}", json=query)
    assert response.status_code == 200, response.text
    return response.json()


def error_of(client, name: str, status: int = 422, operation: str = "top_k", **query) -> str:
    response = client.post(f"/v1/models/{name}/{operation}", json=query)
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error", "code", "request_id"}
    return response.json()["error"]


def log_probs_of(hidden) -> np.ndarray:
    return models.reference(MODEL).log_probs(MODEL, np.array(hidden, dtype=np.float32))


def test_probabilities_are_those_of_the_encoded_rows(client):
    answer = ask(client, "probabilities", "mean", inputs={"ids": ROWS}, log=True)
    wanted = log_probs_of([mean_of(row) for row in ROWS])
    np.testing.assert_allclose(answer["log_probabilities"], wanted, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["mean", "gru"])
@pytest.mark.parametrize("operation", ["probabilities", "top_k", "clusters", "sample"])
def test_every_operation_answers_as_for_the_hidden_states(client, name, operation):
    seed = {"seed": 7} if operation == "sample" else {}
    states = {"mean": mean_of, "gru": lambda row: gru_states(row)[-1]}[name]
    hidden = [states(row).tolist() for row in ROWS]
    by_name = ask(client, operation, name, inputs={"ids": ROWS}, log=True, **seed)
    by_state = ask(client, operation, name, inputs=hidden, log=True, **seed)
    assert numbers(by_name) == pytest.approx(numbers(by_state), abs=TOLERANCE)


def numbers(answer) -> list:
    """All numbers of an answer, in order."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, list):
        return [number for value in answer for number in numbers(value)]
    return [answer] if isinstance(answer, int | float) else []


def test_targets_are_those_of_their_rows(client):
    targets = [[3, 1], [4], [], [10]]
    answer = ask(client, "probabilities", "mean", inputs={"ids": ROWS}, targets=targets, log=True)
    wanted = log_probs_of([mean_of(row) for row in ROWS])
    for row, (got, asked) in enumerate(zip(answer["log_probabilities"], targets, strict=True)):
        np.testing.assert_allclose(got, wanted[row][asked], atol=TOLERANCE)


def test_each_position_is_a_row(client):
    """So that the log-probability of every next word of a sentence is one query."""
    targets = [1, 4, 0, 9, 2]
    rows = [[3, 1, 4], [5, 9]]
    answer = ask(client, "probabilities", "each", inputs={"ids": rows}, targets=targets, log=True)
    wanted = log_probs_of(np.concatenate([gru_states(row) for row in rows]))
    np.testing.assert_allclose(
        answer["log_probabilities"], wanted[np.arange(5), targets], atol=TOLERANCE
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"ids": [[1], [50]]}, "inputs.ids row 1: expected ids from 0 to 49, got 50"),
        ({"ids": [[1], [-1]]}, "inputs.ids row 1: expected ids from 0 to 49, got -1"),
        ({"ids": [[]]}, "inputs.ids row 0: expected at least one position, got none"),
        ({"ids": []}, "inputs.ids: expected at least one row, got none"),
        ({"ids": [["we"]]}, "inputs.ids row 0: expected integers, got something else"),
        ({"ids": [[1.5]]}, "inputs.ids row 0: expected integers, got something else"),
        ({"ids": [3]}, "inputs.ids row 0: expected a list of numbers, got shape []"),
        ({"tokens": [[1]]}, "inputs: expected ids, got tokens"),
        ({}, "inputs: expected ids, got none"),
        ({"ids": [[1]], "mask": [[1]]}, "inputs.mask: expected only ids, got this input too"),
    ],
)
def test_rows_that_do_not_fit_are_422(client, inputs, message):
    assert message in error_of(client, "mean", inputs=inputs)


@pytest.mark.parametrize("inputs", [{"ids": 7}, {"ids": {"a": 1}}, 7, "text"])
def test_inputs_of_another_type_are_422(client, inputs):
    assert error_of(client, "mean", inputs=inputs).startswith("inputs")


def test_inputs_by_name_need_an_encoder(client):
    assert error_of(client, "bare", inputs={"ids": [[1]]}) == (
        f"inputs: expected rows of {HIDDEN} numbers, got inputs by name: bare has no encoder, "
        "so send hidden states, or export it with --encoder"
    )


def test_text_needs_a_tokenizer(client):
    assert error_of(client, "mean", inputs=["three one four"]) == (
        f"inputs row 0: expected a list of {HIDDEN} numbers, got text: mean takes no text, so send "
        "the inputs of its encoder by name, or export it with --tokenizer"
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"ids": [[1]] * 21}, "inputs.ids: expected at most 20 rows, got 21"),
        ({"ids": [[1] * 51] * 2}, "inputs: expected at most 100 positions in all rows, got 102"),
    ],
)
def test_more_than_the_limits_is_413(client, inputs, message):
    assert error_of(client, "mean", 413, inputs=inputs) == message


def test_more_states_than_rows_are_allowed_is_413(client):
    message = error_of(client, "each", 413, inputs={"ids": [[1] * 21]})
    assert message == "inputs: expected at most 20 rows, got 21"


def test_bodies_of_too_many_numbers_are_refused_before_they_are_decoded(client):
    body = b'{"inputs": {"ids": [[' + b"1," * 100_000 + b"1]]}}"
    response = client.post("/v1/models/mean/top_k", content=body)
    assert response.status_code == 413
    assert "body: expected at most" in response.json()["error"]


def test_the_description_says_the_inputs(client):
    described = client.get("/v1/models/mean").json()
    assert described["inputs"] == ["hidden", "named"]
    assert described["encoder"] == {
        "inputs": [{"name": "ids", "dtype": "int64", "shape": ["length"], "num_ids": 50}],
        "position": None,
    }
    assert client.get("/v1/models/each").json()["encoder"]["position"] == "each"
    bare = client.get("/v1/models/bare").json()
    assert (bare["inputs"], bare["encoder"]) == (["hidden"], None)


def test_times_have_those_of_the_encoder(client):
    response = client.post("/v1/models/gru/top_k", json={"inputs": {"ids": ROWS}, "k": TARGETS})
    assert float(response.headers["x-compute-time-ms"]) > 0


def test_answers_do_not_depend_on_neighbours_with_other_lengths(client):
    """Rows of like length run together, padded, and the others apart."""
    lengths = [1, 2, 3, 17, 40]
    rows = [[(7 * i + length) % 50 for i in range(length)] for length in lengths]
    together = ask(client, "probabilities", "mean", inputs={"ids": rows}, log=True)
    for i, row in enumerate(rows):
        alone = ask(client, "probabilities", "mean", inputs={"ids": [row]}, log=True)
        np.testing.assert_allclose(
            together["log_probabilities"][i], alone["log_probabilities"][0], atol=TOLERANCE
        )


def test_rows_of_a_stream_may_be_inputs_by_name(client):
    rows: list[dict] = [
        {"id": "a", "input": {"ids": ROWS[0]}, "target": 3},
        {"id": "b", "input": mean_of(ROWS[1]).tolist(), "target": 3},
        {"id": "c", "input": {"ids": [50]}, "target": 3},
        {"id": "d", "input": {"tokens": [1]}, "target": 3},
        {"id": "e", "input": {"ids": ROWS[2]}, "target": 1},
    ]
    body = "".join(json.dumps(row) + "\n" for row in rows)
    response = client.post("/v1/models/mean/score?task=target_log_prob", content=body)
    *records, summary = map(json.loads, response.text.splitlines())
    assert (summary["summary"]["scored"], summary["summary"]["failed"]) == (3, 2)
    wanted = log_probs_of([mean_of(row) for row in ROWS])
    got = {record["id"]: record["log_prob"] for record in records if "error" not in record}
    assert got == pytest.approx({"a": wanted[0, 3], "b": wanted[1, 3], "e": wanted[2, 1]}, abs=1e-5)
    errors = {record["id"]: record["error"] for record in records if "error" in record}
    assert errors == {
        "c": "input.ids: expected ids from 0 to 49, got 50",
        "d": "input: expected ids, got tokens",
    }


def test_a_stream_of_a_bundle_without_encoder_takes_no_inputs_by_name(client):
    body = json.dumps({"id": "a", "input": {"ids": [1]}, "target": 3})
    response = client.post("/v1/models/bare/score?task=target_log_prob", content=body)
    record, _ = map(json.loads, response.text.splitlines())
    assert record["error"] == "input: expected a list, got an object"


def test_a_row_of_too_many_lists_is_an_error_of_its_own(client):
    lists = ",".join(["[]"] * 2**17)
    body = f'{{"id": "a", "input": {{"ids": [{lists}]}}, "target": 3}}\n'
    response = client.post("/v1/models/mean/score?task=target_log_prob", content=body)
    record, _ = map(json.loads, response.text.splitlines())
    assert record["error"] == "input: expected a list, got an object"


def test_jobs_answer_queries_and_rows_of_inputs_by_name(client, tmp_path):
    repository = client.app.state.context.settings.repository
    path = "/v1/models/mean/top_k"
    body = {"inputs": {"ids": ROWS}, "k": 3}
    bad = {"inputs": {"ids": [[50]]}, "k": 3}
    queries = [{"custom_id": f"q{i}", "body": one} for i, one in enumerate([body, bad])]
    with serving_jobs(repository, tmp_path / "state") as jobs:
        batch = jobs.until(jobs.start(queries, "requests.jsonl", endpoint=path)["id"])
        [answered], [refused] = jobs.records(batch), jobs.errors(batch)
        wanted = jobs.http.post(path, json=body).json()["results"]
        got = answered["response"]["body"]["results"]
        assert [one["targets"] for one in got] == [one["targets"] for one in wanted]
        message = refused["response"]["body"]["error"]["message"]
        assert message == "inputs.ids row 0: expected ids from 0 to 49, got 50"
        rows = [{"custom_id": "a", "input": {"ids": ROWS[0]}, "target": 3}]
        batch = jobs.run(rows, endpoint="/v1/models/mean/score")
        [record] = jobs.records(batch)
        wanted_log_prob = log_probs_of([mean_of(ROWS[0])])[0, 3]
        assert record["log_prob"] == pytest.approx(wanted_log_prob, abs=TOLERANCE)


def test_rows_that_the_encoder_cannot_run_are_422(client):
    """As the service, unlike the model, does not know how long a row may be."""
    assert ask(client, "top_k", "places", inputs={"ids": [[1] * 30]})["results"]
    assert error_of(client, "places", inputs={"ids": [[1] * 31]}) == (
        "inputs: expected rows that the encoder can run, got some of 31 positions that it cannot"
    )
